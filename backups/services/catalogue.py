"""The place where packages are kept: a Django storage, and what its names say. Works without a database."""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, cast

from django.core.files.base import File
from django.core.files.storage import FileSystemStorage, InvalidStorageError, Storage, storages
from django.db import DatabaseError

from backups import conf
from backups.errors import BackupError, PackageDamaged, PackageUnsupported, UsageError
from backups.models import Backup

NAME = re.compile(r"(?P<kind>backup|safety)-(?P<created>\d{8}T\d{6}\.\d{6}Z)-(?P<id>[0-9a-f]{8})\.zip")
_TIME = "%Y%m%dT%H%M%S.%fZ"
LATEST = "latest"
PARTIAL = ".partial-"


@dataclass(frozen=True, kw_only=True)
class StoredPackage:
    """A finished package in the storage, as its name describes it."""

    name: str
    kind: str
    created: datetime
    size: int


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A package as storage and catalogue know it. ``rows`` and ``files`` are None where only its name is known."""

    name: str
    kind: str
    created: datetime
    size: int
    stored: bool
    catalogued: bool
    rows: int | None = None
    files: int | None = None
    note: str = ""


def list_packages(using: str) -> tuple[list[Listed], str]:
    """Return every package that the storage holds or the catalogue remembers, oldest first.

    The second value says why the catalogue could not be read, for a database that is lost; empty where it could.
    """
    stored = {package.name: package for package in stored_packages()}
    remembered, trouble = _remembered(using)
    listed = [
        Listed(
            name=backup.name,
            kind=backup.kind,
            created=backup.created,
            size=backup.size,
            stored=stored.pop(backup.name, None) is not None or _is_elsewhere(backup.name),
            catalogued=True,
            rows=backup.rows,
            files=backup.files,
            note=backup.note,
        )
        for backup in remembered
    ]
    listed += [Listed(**asdict(package), stored=True, catalogued=False) for package in stored.values()]
    return sorted(listed, key=lambda package: (package.created, package.name)), trouble


def _remembered(using: str) -> tuple[list[Backup], str]:
    try:
        return list(Backup.objects.using(using).all()), ""
    except DatabaseError as error:
        return [], str(error).strip().splitlines()[0]


def _is_elsewhere(name: str) -> bool:
    """Return whether a package that was written to a path of its own is still there."""
    return Path(name).is_absolute() and Path(name).is_file()


def package_name(kind: str, created: datetime, package_id: str) -> str:
    return f"{kind}-{created.astimezone(UTC).strftime(_TIME)}-{package_id[:8]}.zip"


def stored_packages() -> list[StoredPackage]:
    """Return the packages in the storage, oldest first. Unfinished and other files do not count."""
    storage = _storage()
    try:
        _, names = storage.listdir("")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BackupError(f"the packages cannot be listed: {error}", hint="see the storage in STORAGES") from error
    packages = []
    for name in names:
        if match := NAME.fullmatch(name):
            created = datetime.strptime(match["created"], _TIME).replace(tzinfo=UTC)
            packages.append(StoredPackage(name=name, kind=match["kind"], created=created, size=storage.size(name)))
    return sorted(packages, key=lambda package: (package.created, package.name))


@contextmanager
def package_path(reference: str) -> Iterator[tuple[Path, str]]:
    """Give path and name of a package that is named by a path, a catalogue name or ``latest``.

    A package in a remote storage is fetched to a temporary file first.
    """
    if (path := Path(reference)).is_file():
        with _named(path.name):
            yield path, path.name
        return
    name = _latest() if reference == LATEST else _catalogue_name(reference)
    storage = _storage()
    if isinstance(storage, FileSystemStorage):
        with _named(name):
            yield Path(storage.path(name)), name
        return
    with _named(name), tempfile.NamedTemporaryFile(suffix=".zip") as local, storage.open(name, "rb") as stored:
        for chunk in stored.chunks():
            local.write(chunk)
        local.flush()
        yield Path(local.name), name


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Say which package it is that cannot be read."""
    try:
        yield
    except (PackageDamaged, PackageUnsupported) as error:
        if name not in str(error):
            error.args = (f"{name}: {error}",)
        raise


class PackageFile:
    """A package being written: a private temporary file beside its place, which takes the name when it is complete.

    It is locked while it is written, so that the next one knows which of them the dead have left, and removes those.
    """

    def __init__(self, output: Path | None) -> None:
        self._output = output and output.absolute()
        self._storage = None if output else _storage()
        directory = self._output.parent if self._output else _directory(self._storage)
        if self._output is not None and (not self._output.parent.is_dir() or self._output.is_dir()):
            raise UsageError(f"{output} is not a file in a directory that exists", hint="give the path of a new file")
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            _remove_left(directory)
        # mkstemp creates with mode 0600: a package holds password hashes and secrets.
        descriptor, name = tempfile.mkstemp(prefix=PARTIAL, suffix=".zip", dir=directory)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        self.path = Path(name)
        self.file: BinaryIO = os.fdopen(descriptor, "w+b")

    def publish(self, name: str) -> str:
        """Give the complete package its name and return it. Nothing that has the name already is overwritten."""
        self.file.close()
        target = self._output or self._target(name)
        if target is None:
            with self.path.open("rb") as content:
                saved = cast("Storage", self._storage).save(name, File(content))
            self.path.unlink()
            return saved
        try:
            os.link(self.path, target)
        except FileExistsError as error:
            raise UsageError(f"{target} exists", hint="choose another name; packages are never overwritten") from error
        self.path.unlink()
        _sync(target.parent)
        return str(target) if self._output else name

    def discard(self) -> None:
        """Remove the temporary file; a finished package stays."""
        self.path.unlink(missing_ok=True)
        with suppress(OSError):  # what could not be written is not missed, and a full disk says so once more here
            self.file.close()

    def _target(self, name: str) -> Path | None:
        return Path(self._storage.path(name)) if isinstance(self._storage, FileSystemStorage) else None


def _remove_left(directory: Path) -> None:
    """Remove the temporary files of processes that died: nobody holds their locks."""
    for path in directory.glob(f"{PARTIAL}*"):
        with suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)


def delete_package(name: str) -> None:
    """Remove a package from the storage."""
    _storage().delete(name)


def size_of(reference: str) -> int:
    path = Path(reference)
    return path.stat().st_size if path.is_file() else _storage().size(reference)


def _storage() -> Storage:
    alias = conf.read().storage
    try:
        return storages[alias]
    except InvalidStorageError as error:
        raise BackupError(
            f"there is no storage {alias!r} to keep packages in",
            hint=f"add {alias!r} to STORAGES, or name another alias in BACKUPS['STORAGE']",
        ) from error


def _directory(storage: Storage | None) -> Path | None:
    return Path(storage.location) if isinstance(storage, FileSystemStorage) else None


def _latest() -> str:
    names = [package.name for package in stored_packages() if package.kind == "backup"]
    if not names:
        raise UsageError("there is no package yet", hint="create one with create_backup, or give a path")
    return names[-1]


def _catalogue_name(reference: str) -> str:
    names = {package.name for package in stored_packages()}
    for name in (reference, f"{reference}.zip"):
        if name in names:
            return name
    raise UsageError(
        f"there is no package {reference!r}", hint="give a path, a name that list_backups shows, or latest"
    )


def _sync(directory: Path) -> None:
    """Make the new name survive a power failure."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
