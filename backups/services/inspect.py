"""Looking into a package, or into a file that could become one, without a database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson
from django.apps import apps

from backups.errors import PackageDamaged
from backups.package.fixtures import FixtureObject
from backups.package.foreign import MAX_METADATA_BYTES, ForeignFile, ForeignMember, contents, recognise
from backups.package.manifest import Manifest
from backups.package.reader import PackageReader
from backups.records.jsontext import EXACT_DECODER, loads
from backups.reporting import NoProgress, Progress
from backups.services.catalogue import package_path
from backups.services.keys import Keys
from backups.services.trust import Signer, signer

PROBLEMS_SHOWN = 20
RESCUE = "use another package; unzip (or zip -FF) and zstd read what is whole of this one"


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


@dataclass(kw_only=True)
class FixtureModel:
    """The objects of one model: ``known_as`` is its name in the code, empty where the code does not have it.

    References are counted by how they are written; one that the code does not know is counted in neither.
    """

    model: str
    known_as: str
    objects: int = 0
    without_primary_key: int = 0
    by_primary_key: int = 0
    by_natural_key: int = 0


@dataclass(kw_only=True)
class ForeignInspection:
    """What a fixture or a migration package holds. It exists only where all of it could be read."""

    name: str
    size: int
    kind: str
    format: str
    compression: str
    models: list[FixtureModel] = field(default_factory=list)
    files: int = 0
    bytes: int = 0
    config: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    metadata: Any = None

    @property
    def references(self) -> str:
        """How the references are written: by primary key, natural, mixed or none."""
        by_primary_key = any(model.by_primary_key for model in self.models)
        by_natural_key = any(model.by_natural_key for model in self.models)
        if by_primary_key and by_natural_key:
            return "mixed"
        return "primary keys" if by_primary_key else "natural keys" if by_natural_key else "none"

    def as_data(self) -> dict[str, Any]:
        """Return everything as JSON has it."""
        return {**asdict(self), "references": self.references}


def inspect(
    package: str,
    progress: Progress | None = None,
    keys: Keys | None = None,
    *,
    mapping: Mapping[str, str] | None = None,
) -> Inspection | ForeignInspection:
    """Open a package and check every hash in it, or read a foreign file to its end.

    ``mapping`` renames the models of a foreign file; ``size`` is that of the package, decrypted where it is encrypted.
    A package that nobody trusted has signed can be looked into. Raises ``PackageDamaged`` for what is not whole and for
    what is neither, ``PackageLocked`` for what no key opens, ``PackageUnsupported`` for a package of another format.
    """
    with _saying_what_is_readable(), package_path(package, keys) as (path, name):
        foreign = recognise(path)
        if foreign is not None:
            return _inspect_foreign(foreign, path, name, progress or NoProgress(), mapping or {})
        with PackageReader(path) as opened:
            _require_sound(opened, progress or NoProgress())
            signed_by = signer(opened.signature)
            return Inspection(name=name, size=path.stat().st_size, signer=signed_by, manifest=opened.manifest)


@contextmanager
def _saying_what_is_readable() -> Iterator[None]:
    """Add to the refusal of a package that could not be opened what could be read of it."""
    try:
        yield
    except PackageDamaged as error:
        if error.survey is not None:
            error.args = (f"{error}\nreadable are {error.survey.readable()}",)
            error.hint = RESCUE
        raise


def _require_sound(package: PackageReader, progress: Progress) -> None:
    """Raise ``PackageDamaged`` for a package that is not whole, and say what of it is."""
    # An error itself would keep what its frames hold: the pieces of every damaged member at once.
    problems = {member: str(problem) for member, problem in package.problems(progress)}
    if not problems:
        return
    models = [entry for entry in package.manifest.models if entry.rows]
    whole = [entry.label for entry in models if not any(chunk.member in problems for chunk in entry.chunks)]
    files = package.manifest.files.count - sum(1 for member in problems if member.startswith("files/"))
    raise PackageDamaged(
        "\n  ".join([f"{len(problems)} members are damaged:", *list(problems.values())[:PROBLEMS_SHOWN]])
        + f"\nwhole are {files} of {package.manifest.files.count} files, and {len(whole)} of {len(models)} models: "
        + (", ".join(whole) or "none"),
        hint=RESCUE,
    )


def _inspect_foreign(
    foreign: ForeignFile, path: Path, name: str, progress: Progress, mapping: Mapping[str, str]
) -> ForeignInspection:
    inspection = ForeignInspection(
        name=name,
        size=path.stat().st_size,
        kind=foreign.kind,
        format=foreign.format,
        compression=foreign.compression,
    )
    models: dict[str, _Model] = {}
    progress.start(f"read {foreign.kind}")
    for item in contents(foreign, EXACT_DECODER):
        if isinstance(item, FixtureObject):
            if item.model not in models:
                models[item.model] = _Model(item.model, mapping.get(item.model, item.model))
            models[item.model].add(item)
            progress.advance(1)
        else:
            _add_member(inspection, item)
    progress.finish()
    inspection.models = [models[label].result for label in sorted(models)]
    return inspection


def _add_member(inspection: ForeignInspection, member: ForeignMember) -> None:
    if member.kind == "storage":
        inspection.files += 1
        inspection.bytes += member.size
    elif member.kind == "configuration":
        inspection.config.append(member.name)
    elif member.kind == "metadata":
        try:
            inspection.metadata = loads(member.read(MAX_METADATA_BYTES))
        except ValueError:
            inspection.unknown.append(member.name)
    else:
        inspection.unknown.append(member.name)


class _Model:
    """Counts the objects of one model and the styles of its references."""

    def __init__(self, label: str, known_as: str) -> None:
        self._relations: set[str] = set()
        self._many: set[str] = set()
        try:
            model = apps.get_model(known_as)
        except (LookupError, ValueError):
            known_as = ""
        else:
            known_as = model._meta.label_lower
            self._relations = {one.name for one in model._meta.concrete_fields if one.remote_field}
            self._many = {one.name for one in model._meta.many_to_many}
        self.result = FixtureModel(model=label, known_as=known_as)

    def add(self, one: FixtureObject) -> None:
        self.result.objects += 1
        self.result.without_primary_key += not one.has_pk
        for name, value in one.fields.items():
            if name in self._relations and value is not None:
                self._count(value)
            elif name in self._many and isinstance(value, list):
                for target in value:
                    self._count(target)

    def _count(self, value: Any) -> None:
        if isinstance(value, list):
            self.result.by_natural_key += 1
        else:
            self.result.by_primary_key += 1
