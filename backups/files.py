"""Stored files as streams: reading them for a package, and putting them back all or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from django.conf import settings
from django.core.exceptions import SuspiciousOperation
from django.core.files.base import File
from django.core.files.storage import FileSystemStorage, Storage, default_storage, storages
from django.db.models import FileField, Model

from backups.errors import BackupError

CHUNK_BYTES = 1024 * 1024


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
    """Read a stored file in pieces of at most ``CHUNK_BYTES``. Raises ``OSError`` where it cannot be read."""
    with storage.open(name, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


class StagedFiles:
    """New contents beside the stored files: written first, put in their places later, or discarded.

    On the file system a place is taken by renaming, and what was there waits under another name until everything is
    in place, so that a failure can bring it back. Other storages have no rename: there the content is saved twice.
    """

    def __init__(self) -> None:
        self._directory = f".restoring-{uuid.uuid4().hex}"
        self._staged: list[tuple[Storage, str, str]] = []
        self._replaced: list[tuple[Path, Path | None]] = []

    def add(self, storage: Storage, name: str, chunks: Iterable[bytes]) -> None:
        """Write the content that ``name`` is to have."""
        staged = f"{self._directory}/{len(self._staged)}"
        try:
            if isinstance(storage, FileSystemStorage):
                storage.path(name)  # refuses a name that leads out of the storage, before anything is written
                path = Path(storage.path(staged))
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                with path.open("wb") as file:
                    for chunk in chunks:
                        file.write(chunk)
                    file.flush()
                    os.fsync(file.fileno())
                if storage.file_permissions_mode is not None:
                    path.chmod(storage.file_permissions_mode)
            else:
                staged = storage.save(staged, ContentStream(chunks))
        except SuspiciousOperation as error:
            raise BackupError(f"the file name {name!r} leads out of its storage") from error
        self._staged.append((storage, name, staged))

    def publish(self) -> None:
        """Put every staged file in its place. If that fails, the places are as they were, and the error goes on."""
        try:
            for storage, name, staged in self._staged:
                self._place(storage, name, staged)
        except BaseException:
            self._put_back()
            raise
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove what is staged and not in place."""
        for storage, _, staged in self._staged:
            if isinstance(storage, FileSystemStorage):
                shutil.rmtree(Path(storage.path(staged)).parent, ignore_errors=True)
            else:
                storage.delete(staged)
        self._staged = []

    def _place(self, storage: Storage, name: str, staged: str) -> None:
        if not isinstance(storage, FileSystemStorage):
            storage.delete(name)
            with storage.open(staged, "rb") as content:
                saved = storage.save(name, content)
            if saved != name:
                storage.delete(saved)
                raise BackupError(f"the storage gave the file {name!r} another name: {saved!r}")
            return
        path, new = Path(storage.path(name)), Path(storage.path(staged))
        _make_directories(storage, path.parent)
        old = None
        if path.exists():
            old = new.with_name(f"{new.name}-old")
            path.rename(old)
        self._replaced.append((path, old))
        new.rename(path)

    def _put_back(self) -> None:
        for path, old in reversed(self._replaced):
            path.unlink(missing_ok=True)
            if old is not None:
                old.rename(path)


class ContentStream(File):  # type: ignore[type-arg]
    """A file made of chunks, for ``Storage.save``."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        super().__init__(None)
        self._chunks = chunks

    def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
        yield from self._chunks


def delete(stored: Iterable[tuple[Storage, str]]) -> int:
    """Delete stored files, and the directories that this leaves empty. Returns how many files there were."""
    deleted = 0
    for storage, name in stored:
        deleted += storage.exists(name)
        storage.delete(name)
        if isinstance(storage, FileSystemStorage):
            root = Path(storage.location)
            for parent in Path(storage.path(name)).parents:
                if parent == root or root not in parent.parents or any(parent.iterdir()):
                    break
                parent.rmdir()
    return deleted


def _make_directories(storage: FileSystemStorage, directory: Path) -> None:
    missing: Sequence[Path] = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    if storage.directory_permissions_mode is not None:
        for path in missing:
            path.chmod(storage.directory_permissions_mode)
