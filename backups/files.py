"""Stored files as streams: reading them for a package, and changing them all or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path, PurePosixPath

from django.conf import settings
from django.core.exceptions import SuspiciousOperation
from django.core.files.base import File
from django.core.files.storage import FileSystemStorage, Storage, default_storage, storages
from django.db.models import FileField, Model

from backups.errors import BackupError

CHUNK_BYTES = 1024 * 1024
CHANGES = ".changes-"
"""How the names of what ``FileChanges`` makes for a while begin."""


def make_private(directory: Path) -> None:
    """Make a directory, and those above it that are missing, for their owner alone."""
    for path in reversed((directory, *directory.parents)):
        if not path.exists():
            path.mkdir(mode=0o700, exist_ok=True)


def storages_of(models: Iterable[type[Model]]) -> dict[str, Storage]:
    """Return the storages that the file fields of ``models`` use, by alias."""
    found: dict[str, Storage] = {}
    for model in models:
        for field in model._meta.local_concrete_fields:
            if isinstance(field, FileField):
                found[storage_alias(field)] = field.storage
    return found


def storage_alias(field: FileField) -> str:
    """Name a field's storage: its alias in ``STORAGES``, or the field itself where it has a storage of its own."""
    if field.storage is default_storage:
        return "default"
    for alias in settings.STORAGES:
        if storages[alias] is field.storage:
            return str(alias)
    return f"{field.model._meta.label_lower}.{field.name}"


def read_chunks(storage: Storage, name: str) -> Iterator[bytes]:
    """Read a stored file in pieces of at most ``CHUNK_BYTES``.

    Raises ``OSError`` where it cannot be read, and ``BackupError`` for a name that no file can have.
    """
    if "\0" in name:  # SQLite and MariaDB keep it
        raise BackupError(
            f"a row names the file {name!r}, and no file has a NUL character in its name",
            hint="correct the row; what such a name means cannot be backed up",
        )
    if isinstance(storage, FileSystemStorage) and not stat.S_ISREG(Path(storage.path(name)).stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", name)  # opening a pipe waits for somebody to write to it
    with storage.open(name, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


@dataclass(frozen=True, slots=True)
class _Change:
    """One place in a storage. ``existed`` says whether a file was there; ``writes`` whether one will be."""

    number: int
    name: str
    existed: bool
    writes: bool


class FileChanges:
    """Files to write and to remove: staged first, then applied together, then kept or taken back, all of them.

    Each storage has them in a directory of its own: new contents as ``<number>``, what was there as ``<number>-old``,
    and a journal of the places, written before the first place is touched. Where a place lies on another file system,
    it has a hidden copy beside it for a moment. A process that died in the middle leaves what its successor needs to
    take everything back under the same ``key``.
    """

    def __init__(self, key: str, storages: Mapping[str, Storage]) -> None:
        self._directory = f"{CHANGES}{key}"
        self._storages = storages
        self._changes: dict[str, list[_Change]] = {}

    def write(self, alias: str, name: str, chunks: Iterable[bytes]) -> None:
        """Stage the content that a file is to have. Raises ``BackupError`` for a name that leads out of its storage."""
        storage = self._storages[alias]
        change = _Change(self._next(alias), name, exists(storage, name), writes=True)
        self._changes.setdefault(alias, []).append(change)
        save(storage, f"{self._directory}/{change.number}", chunks)

    def remove(self, alias: str, name: str) -> bool:
        """Have a file removed; return whether there is one."""
        found = exists(self._storages[alias], name)
        if found:
            self._changes.setdefault(alias, []).append(_Change(self._next(alias), name, existed=True, writes=False))
        return found

    def apply(self) -> None:
        """Put everything in its place. What fails here is taken back by ``take_back``."""
        for alias, changes in self._changes.items():
            journal = "".join(f"{json.dumps(asdict(change))}\n" for change in changes)
            save(self._storages[alias], self._journal, [journal.encode()])
        for alias, changes in self._changes.items():
            for change in changes:
                self._apply(self._storages[alias], change)

    def keep(self) -> list[str]:
        """Forget what was there before; return what could not be removed."""
        left = [path for storage in self._storages.values() for path in self._forget(storage)]
        for alias, changes in self._changes.items():
            for change in changes:
                if not change.writes:
                    _remove_empty_directories(self._storages[alias], change.name)
        return left

    def take_back(self) -> list[str]:
        """Bring back what was there before, whatever has been done since; return what could not be removed."""
        left: list[str] = []
        for storage in self._storages.values():
            if storage.exists(self._journal):
                with storage.open(self._journal, "rb") as journal:
                    changes = [_Change(**json.loads(line)) for line in journal.read().splitlines()]
                for change in reversed(changes):
                    self._take_back(storage, change)
            left += self._forget(storage)
        return left

    @property
    def _journal(self) -> str:
        return f"{self._directory}/journal"

    def _next(self, alias: str) -> int:
        return len(self._changes.get(alias, ()))

    def _apply(self, storage: Storage, change: _Change) -> None:
        if change.existed:
            self._move(storage, change.name, f"{self._directory}/{change.number}-old", change)
        if change.writes:
            self._move(storage, f"{self._directory}/{change.number}", change.name, change)

    def _take_back(self, storage: Storage, change: _Change) -> None:
        new, old = f"{self._directory}/{change.number}", f"{self._directory}/{change.number}-old"
        if isinstance(storage, FileSystemStorage):
            Path(storage.path(self._copy(change.name, change))).unlink(missing_ok=True)
        if not change.existed:
            # What still waits was not put in place: a file that is there now is somebody else's. A copy of what waits
            # is ours, made where it takes more than one step.
            if not storage.exists(new) or (storage.exists(change.name) and _is_same(storage, new, change.name)):
                storage.delete(change.name)
            _remove_empty_directories(storage, change.name)
        elif storage.exists(old):
            self._move(storage, old, change.name, change)

    def _move(self, storage: Storage, name: str, target: str, change: _Change) -> None:
        """Give a file another name, over whatever has it. Only a file system can do that in one step."""
        if not isinstance(storage, FileSystemStorage):
            storage.delete(target)
            with storage.open(name, "rb") as content:
                save(storage, target, iter(partial(content.read, CHUNK_BYTES), b""))
            storage.delete(name)
            return
        source, path = Path(storage.path(name)), Path(storage.path(target))
        _make_directories(storage, path.parent)
        try:
            source.replace(path)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            copy = Path(storage.path(self._copy(target, change)))
            _copy(source, copy)
            copy.replace(path)
            source.unlink()

    def _copy(self, target: str, change: _Change) -> str:
        """Name the hidden copy beside a place on another file system, which then takes the place's name."""
        return str(PurePosixPath(target).with_name(f"{self._directory}-{change.number}"))

    def _forget(self, storage: Storage) -> list[str]:
        if isinstance(storage, FileSystemStorage):
            left: list[str] = []
            if (directory := Path(storage.path(self._directory))).exists():
                shutil.rmtree(directory, onerror=lambda function, path, error: left.append(path))
            return left
        try:
            _, names = storage.listdir(self._directory)
        except FileNotFoundError:
            return []
        for name in names:
            storage.delete(f"{self._directory}/{name}")
        return []


def exists(storage: Storage, name: str) -> bool:
    """Return whether a storage has a file. Raises ``BackupError`` for a name that leads out of it."""
    try:
        return storage.exists(name)
    except SuspiciousOperation as error:
        raise BackupError(f"the file name {name!r} leads out of its storage") from error


class ContentStream(File):  # type: ignore[type-arg]
    """A file made of chunks, for ``Storage.save``."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        super().__init__(None)
        self._chunks = chunks

    def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
        yield from self._chunks


def save(storage: Storage, name: str, chunks: Iterable[bytes]) -> None:
    """Write a file that is on disk when this returns."""
    if not isinstance(storage, FileSystemStorage):
        saved = storage.save(name, ContentStream(chunks))
        if saved != name:
            storage.delete(saved)
            raise BackupError(f"the storage gave the file {name!r} another name: {saved!r}")
        return
    path = Path(storage.path(name))
    _make_directories(storage, Path(storage.location))
    make_private(path.parent)
    with path.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    if storage.file_permissions_mode is not None:
        path.chmod(storage.file_permissions_mode)


def _copy(source: Path, copy: Path) -> None:
    """Copy a file as it is, with its owner where that is permitted, so that the copy is on disk."""
    if not source.is_symlink():
        copy.touch(mode=0o600)  # it is nobody else's business while it is written
    shutil.copy2(source, copy, follow_symlinks=False)
    owner = source.lstat()
    with suppress(PermissionError):
        os.chown(copy, owner.st_uid, owner.st_gid, follow_symlinks=False)
    if not source.is_symlink():
        with copy.open("rb") as file:
            os.fsync(file.fileno())


def _is_same(storage: Storage, ours: str, found: str) -> bool:
    try:
        return all(one == other for one, other in zip_longest(read_chunks(storage, ours), read_chunks(storage, found)))
    except OSError:  # a directory, or a file that others may not read: none that was made here
        return False


def _remove_empty_directories(storage: Storage, name: str) -> None:
    """Remove the directories above a name that hold nothing any more."""
    if not isinstance(storage, FileSystemStorage):
        return
    root = Path(storage.location)
    for parent in Path(storage.path(name)).parents:
        if parent == root or root not in parent.parents:
            return
        try:
            parent.rmdir()
        except FileNotFoundError:
            continue
        except OSError:  # it holds something, or is a link or where another file system begins
            return


def _make_directories(storage: FileSystemStorage, directory: Path) -> None:
    """Make a storage's directory as Django does, but the storage itself, where it is missing, for its owner alone."""
    missing: Sequence[Path] = [path for path in (directory, *directory.parents) if not path.exists()]
    make_private(Path(storage.location))
    directory.mkdir(parents=True, exist_ok=True)
    if storage.directory_permissions_mode is not None:
        for path in missing:
            path.chmod(storage.directory_permissions_mode)
