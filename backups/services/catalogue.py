"""The place where packages are kept: a Django storage, and what its names say. Works without a database."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from django.core.files.base import File
from django.core.files.storage import FileSystemStorage, InvalidStorageError, Storage, storages
from django.db import DatabaseError, connections
from django.utils import timezone

from backups import conf, files, reports
from backups.errors import BackupError, PackageDamaged, PackageUnsupported, UsageError
from backups.models import Backup
from backups.package.container import COPY_BYTES
from backups.package.writer import hash_stream
from backups.services.keys import Encryption, Keys, open_file_path, unlocked

NAME = re.compile(r"(?P<kind>backup|safety)-(?P<created>\d{8}T\d{6}\.\d{6}Z)-(?P<id>[0-9a-f]{8})\.zip(?:\.age)?")
_TIME = "%Y%m%dT%H%M%S.%fZ"
_SHOWN = "%Y-%m-%d %H:%M:%S"
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
    pinned: bool
    rows: int | None = None
    files: int | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Undoing:
    """The safety backup to restore, and what it undoes. ``operation`` is empty where the storage alone is known."""

    package: str
    created: datetime
    operation: str = ""

    def __str__(self) -> str:
        known = self.operation or "something that the database has no report of, and this package is the newest stored"
        return f"{known}; {self.package} has what was there at {self.created:{_SHOWN}} UTC"


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
            pinned=backup.pinned,
            rows=backup.rows,
            files=backup.files,
            note=backup.note,
        )
        for backup in remembered
    ]
    listed += [
        Listed(**asdict(package), stored=True, catalogued=False, pinned=package.kind == Backup.Kind.SAFETY)
        for package in stored.values()
    ]
    return sorted(listed, key=lambda package: (package.created, package.name)), trouble


def find_undo(using: str) -> Undoing:
    """Find the safety backup of the last operation that changed something in a database and was committed.

    Where the database has no report of one, because it was lost, the newest in the storage has to do that no other
    database remembers. Raises ``UsageError`` where there is none, or where that operation has none: what an earlier
    one has would undo more than was asked for.
    """
    stored = {package.name: package for package in stored_packages() if package.kind == Backup.Kind.SAFETY}
    with suppress(DatabaseError):
        if (last := reports.last_change(using)) is not None:
            what = f"the {last.operation} that {last.account} began at {last.started:{_SHOWN}} UTC"
            if last.safety_backup not in stored:
                gone = f"its safety backup {last.safety_backup} is not stored any more"
                raise UsageError(
                    f"{what} cannot be undone: {gone if last.safety_backup else 'it was made without a safety backup'}",
                    hint="to go back further, name an earlier one, which list_backups shows: restore_backup NAME"
                    " --mode replace",
                )
            return Undoing(package=last.safety_backup, created=stored[last.safety_backup].created, operation=what)
    own = [backup.name for backup in sorted(_remembered(using)[0], key=lambda backup: backup.pk)]
    others = {backup.name for alias in connections if alias != using for backup in _remembered(alias)[0]}
    found = [name for name in own if name in stored] or [name for name in stored if name not in others]
    if not found:
        raise UsageError(
            "there is nothing to undo: no safety backup is stored", hint="list_backups shows what there is"
        )
    return Undoing(package=found[-1], created=stored[found[-1]].created)


def _remembered(using: str) -> tuple[list[Backup], str]:
    try:
        return list(Backup.objects.using(using).all()), ""
    except DatabaseError as error:
        return [], str(error).strip().splitlines()[0]


def _is_elsewhere(name: str) -> bool:
    """Return whether a package that was written to a path of its own is still there, as far as this account sees."""
    return Path(name).is_absolute() and os.path.isfile(name)  # noqa: PTH113 - Path raises where it may not look


def package_name(kind: str, created: datetime, package_id: str, *, encrypted: bool) -> str:
    ending = ".zip.age" if encrypted else ".zip"
    return f"{kind}-{created.astimezone(UTC).strftime(_TIME)}-{package_id[:8]}{ending}"


def stored_packages() -> list[StoredPackage]:
    """Return the packages in the storage, oldest first. Unfinished and other files do not count, nor does a pipe."""
    storage = package_storage()
    try:
        _, names = storage.listdir("")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BackupError(f"the packages cannot be listed: {error}", hint="see the storage in STORAGES") from error
    packages = []
    for name in names:
        if (match := NAME.fullmatch(name)) and _is_file(storage, name):
            with suppress(ValueError, OSError):  # a date that does not exist, a link to nowhere: anybody's stray file
                created = datetime.strptime(match["created"], _TIME).replace(tzinfo=UTC)
                packages.append(StoredPackage(name=name, kind=match["kind"], created=created, size=storage.size(name)))
    return sorted(packages, key=lambda package: (package.created, package.name))


def _is_file(storage: Storage, name: str) -> bool:
    return not isinstance(storage, FileSystemStorage) or Path(storage.path(name)).is_file()


@contextmanager
def package_path(reference: str, keys: Keys | None = None) -> Iterator[tuple[Path, str]]:
    """Give path and name of a package that is named by a path, a catalogue name or ``latest``.

    A package in a remote storage is fetched to a temporary file first, and an encrypted one decrypted to one; neither
    file has a name. Raises ``PackageLocked`` where ``keys`` do not open it.
    """
    with _stored_path(reference) as (path, name), unlocked(path, name, keys or Keys()) as readable:
        yield readable, name


@contextmanager
def _stored_path(reference: str) -> Iterator[tuple[Path, str]]:
    if reference != LATEST and (path := Path(reference)).is_file():
        with _named(path.name):
            yield path, path.name
        return
    name = _latest() if reference == LATEST else _catalogue_name(reference)
    storage = package_storage()
    if isinstance(storage, FileSystemStorage):
        with _named(name):
            yield Path(storage.path(name)), name
        return
    with _named(name), tempfile.TemporaryFile() as local, storage.open(name, "rb") as stored:
        for chunk in stored.chunks():
            local.write(chunk)
        local.flush()
        yield open_file_path(local), name


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

    One that is to be encrypted is written to a file without a name, and only what ``seal`` makes of it has one. It is
    locked while it is written, so that the next one knows which of them the dead have left, and removes those.
    """

    def __init__(self, output: Path | None, encryption: Encryption | None = None) -> None:
        self._output = output and output.absolute()
        self._encryption = encryption
        self._storage = None if output else package_storage()
        self._directory = self._output.parent if self._output else _directory(self._storage)
        if self._output is not None and (not self._output.parent.is_dir() or self._output.is_dir()):
            raise UsageError(f"{output} is not a file in a directory that exists", hint="give the path of a new file")
        if self._directory is not None:
            files.make_private(self._directory)
            _require_directory(self._directory)
            _remove_left(self._directory)
        self.published = ""
        """The name that it has been given, as soon as it has it."""
        self._named: Path | None = None
        self._open: list[BinaryIO] = []
        self.file: BinaryIO
        if encryption is None:
            self.file = self._create(".zip")
        else:
            self.file = cast("BinaryIO", tempfile.TemporaryFile(dir=self._directory))  # noqa: SIM115
            self._open.append(self.file)

    @property
    def path(self) -> Path:
        """Where the plain package can be read until it is published."""
        return open_file_path(self.file) if self._encryption else cast("Path", self._named)

    @property
    def size(self) -> int:
        """Bytes of the file that is published."""
        return cast("Path", self._named).stat().st_size

    def seal(self) -> None:
        """Encrypt the package where that is wanted, and read back what was written. Raises ``BackupError``."""
        if self._encryption is None:
            return
        sealed = self._create(".zip.age")
        self.file.seek(0)
        written = _Hashing(sealed)
        self._encryption.seal(self.file, cast("BinaryIO", written))
        sealed.flush()
        os.fsync(sealed.fileno())
        sealed.seek(0)
        if hash_stream(iter(partial(sealed.read, COPY_BYTES), b""))[2] != written.sha256.hexdigest():
            raise BackupError("the encrypted package is not on the disk as it was written", hint="check the disk")

    def _create(self, ending: str) -> BinaryIO:
        # mkstemp creates with mode 0600: a package holds password hashes and secrets.
        descriptor, name = tempfile.mkstemp(prefix=PARTIAL, suffix=ending, dir=self._directory)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        self._named = Path(name)
        file = os.fdopen(descriptor, "w+b")
        self._open.append(file)
        return file

    def publish(self, name: str) -> str:
        """Give the complete package its name and return it. Nothing that has the name already is overwritten."""
        complete = cast("Path", self._named)
        target = self._output or self._target(name)
        if target is None:
            storage = cast("Storage", self._storage)
            with complete.open("rb") as content:
                saved = storage.save(name, File(content))
            if saved != name:
                storage.delete(saved)
                raise UsageError(f"{name} exists", hint="see that the clock is right; packages are never overwritten")
            self.published = name
            return name
        try:
            os.link(complete, target)
        except FileExistsError as error:
            raise UsageError(f"{target} exists", hint="choose another name; packages are never overwritten") from error
        self.published = str(target) if self._output else name
        complete.unlink()
        _sync(target.parent)
        return self.published

    def discard(self) -> None:
        """Remove the temporary file; a finished package stays."""
        if self._named is not None:
            self._named.unlink(missing_ok=True)
        for file in self._open:
            with suppress(OSError):  # what could not be written is not missed, and a full disk says so once more here
                file.close()

    def _target(self, name: str) -> Path | None:
        return Path(self._storage.path(name)) if isinstance(self._storage, FileSystemStorage) else None


def _require_directory(directory: Path) -> None:
    """Raise ``BackupError`` for a directory that a package could be put in, but not be kept in for certain."""
    try:
        os.close(os.open(directory, os.O_RDONLY))
    except OSError as error:
        raise BackupError(
            f"{directory} cannot be read: {error.strerror}", hint="packages need a directory that can be read as well"
        ) from error


def _remove_left(directory: Path) -> None:
    """Remove the temporary files of processes that died: nobody holds their locks."""
    for path in filter(Path.is_file, directory.glob(f"{PARTIAL}*")):  # opening a pipe waits for somebody to write to it
        with suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)


class _Hashing:
    """A file being written, and the hash of what it was given."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def package_storage() -> Storage:
    """Return the storage that packages are kept in."""
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
    packages = [package for package in stored_packages() if package.kind == Backup.Kind.BACKUP]
    if not packages:
        raise UsageError("there is no package yet", hint="create one with create_backup, or give a path")
    if packages[-1].created > timezone.now():
        raise UsageError(
            f"which package is the latest is not known: {packages[-1].name} is from later than now",
            hint="see that the clock is right, or give the name of a package",
        )
    return packages[-1].name


def _catalogue_name(reference: str) -> str:
    names = {package.name for package in stored_packages()}
    for name in (reference, f"{reference}.zip", f"{reference}.age", f"{reference}.zip.age"):
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
