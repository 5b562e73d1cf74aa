"""Looking into a package without a database."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from backups.errors import PackageUnsupported
from backups.package.manifest import Manifest
from backups.package.reader import PackageReader
from backups.reporting import NoProgress, Progress
from backups.services.catalogue import package_path
from backups.services.keys import Keys
from backups.services.trust import Signer, signer

ZIP_SIGNATURE = b"PK\3\4"


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What a package holds. It exists only where every hash in it has been checked."""

    name: str
    size: int
    signer: Signer | None
    manifest: Manifest

    def as_data(self) -> dict[str, Any]:
        """Return everything as JSON has it."""
        return {
            "name": self.name,
            "size": self.size,
            "signer": asdict(self.signer) if self.signer else None,
            "manifest": orjson.loads(self.manifest.to_json()),
        }


def inspect(package: str, progress: Progress | None = None, keys: Keys | None = None) -> Inspection:
    """Open a package and check every hash in it. ``size`` is that of the package, decrypted where it is encrypted.

    A package that nobody trusted has signed can be looked into. Raises ``PackageDamaged`` for what is not whole,
    ``PackageLocked`` for what no key opens, ``PackageUnsupported`` for what is no package of this format.
    """
    with package_path(package, keys) as (path, name):
        _require_package(path)
        with PackageReader(path) as opened:
            opened.check(progress or NoProgress())
            signed_by = signer(opened.signature)
            return Inspection(name=name, size=path.stat().st_size, signer=signed_by, manifest=opened.manifest)


def _require_package(path: Path) -> None:
    with path.open("rb") as file:
        beginning = file.read(64).lstrip()
    if beginning[:1] in (b"[", b"{"):
        raise PackageUnsupported(
            f"{path.name} looks like a JSON fixture, which is not supported yet",
            hint="load it with manage.py loaddata",
        )
