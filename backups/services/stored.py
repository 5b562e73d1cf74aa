"""The files and configuration of a package, and those of the live system."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from django.apps import apps
from django.core.exceptions import SuspiciousOperation
from django.core.files.storage import Storage
from django.db.models import Model

from backups import databases, files
from backups.errors import BackupError, PackageDamaged, PackageUnsupported, UsageError
from backups.package.manifest import FileRecord
from backups.package.reader import PackageReader
from backups.package.writer import hash_stream
from backups.records import coverage
from backups.records.relations import column_of
from backups.records.scratch import Scratch
from backups.records.table import Table
from backups.reporting import Finding, Progress, Report, Severity


class FileNames:
    """A set of stored files' names in order, in bounded memory."""

    def __init__(self) -> None:
        self._scratch = Scratch()
        self._sql = self._scratch.connection
        self._sql.execute("CREATE TABLE names (storage TEXT, name TEXT, PRIMARY KEY (storage, name)) WITHOUT ROWID")

    def add(self, storage: str, name: str) -> None:
        self._sql.execute("INSERT OR IGNORE INTO names VALUES (?, ?)", (storage, name))

    def __contains__(self, name: tuple[str, str]) -> bool:
        try:
            found = self._sql.execute("SELECT 1 FROM names WHERE storage = ? AND name = ?", name)
        except UnicodeEncodeError:  # a file whose name is not UTF-8 on the disk: no row can name it
            return False
        return found.fetchone() is not None

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._sql.execute("SELECT storage, name FROM names ORDER BY storage, name"))

    def __len__(self) -> int:
        count: int = self._sql.execute("SELECT COUNT(*) FROM names").fetchone()[0]
        return count


def referenced_files(models: Sequence[type[Model]], using: str) -> FileNames:
    """Return the files that the rows of ``models`` name."""
    names = FileNames()
    for table in map(Table, models):
        for field in table.file_fields:
            for value in databases.of(using).distinct(table.name, column_of(field)):
                names.add(files.storage_alias(field), value)
    return names


class FileRestore:
    """The files of a package on their way into the storages: planned, staged, applied, then kept or taken back."""

    def __init__(self, package: PackageReader, report: Report, progress: Progress, *, undo: bool = False) -> None:
        self._package = package
        self._report = report
        self._progress = progress
        self._undo = undo
        self._storages = storages_of(package)
        self.changes = files.FileChanges(report.id.hex, self._storages)
        self._to_write: list[FileRecord] = []
        self._to_remove: list[FileRecord] = []

    def plan(self) -> None:
        """Find out which files are to be written, by hashing those that are there."""
        result = self._report.files
        total = self._package.manifest.files.bytes
        self._progress.start("compare files", total, "bytes")
        for record in self._package.files():
            if record.is_absent:
                if self._undo and files.exists(storage_of(self._storages, record), record.name):
                    self._to_remove.append(record)
                    result.deleted += 1
                continue
            result.package += 1
            if record.sha256 is None:
                result.missing += 1
                self._report.findings.append(_missing_in_package(record))
                continue
            result.bytes += record.size or 0
            storage = storage_of(self._storages, record)
            found = stored_hash(storage, record.name)
            if found == record.sha256:
                result.unchanged += 1
            else:
                self._to_write.append(record)
                if found is None:
                    result.created += 1
                else:
                    result.replaced += 1
            self._progress.advance(record.size or 0)
        self._progress.finish()

    @property
    def changes_anything(self) -> bool:
        return bool(self._to_write or self._to_remove)

    @property
    def touched(self) -> list[tuple[str, str]]:
        """Storage and name of every file that is to be written or removed."""
        return [(record.storage, record.name) for record in [*self._to_write, *self._to_remove]]

    def stage(self, using: str) -> None:
        """Write the contents where they are out of the way. What is to be removed stays where a row names it."""
        named = referenced_files(coverage.of_database(using).models if self._to_remove else (), using)
        self._to_remove = [one for one in self._to_remove if (one.storage, one.name) not in named]
        self._report.files.deleted = sum(self.changes.remove(one.storage, one.name) for one in self._to_remove)
        self._progress.start("stage files", sum(record.size or 0 for record in self._to_write), "bytes")
        for record in self._to_write:
            self.changes.write(record.storage, record.name, self._package.iter_file(str(record.sha256)))
            self._progress.advance(record.size or 0)
        self._progress.finish()

    def apply(self) -> None:
        """Move what is staged into its places and hash it again."""
        self.changes.apply()
        proved = not any(files.exists(storage_of(self._storages, one), one.name) for one in self._to_remove)
        for record in self._to_write:
            found = stored_hash(storage_of(self._storages, record), record.name)
            if found != record.sha256:
                proved = False
                self._report.findings.append(_file_differs(record, found))
        self._report.files.proved = proved


def compare_files(report: Report, package: PackageReader, progress: Progress) -> None:
    """Compare every file of a package with the stored one."""
    storages = storages_of(package)
    result = report.files
    progress.start("compare files", package.manifest.files.bytes, "bytes")
    result.proved = True
    for record in package.files():
        if record.is_absent:
            continue
        result.package += 1
        if record.sha256 is None:
            result.missing += 1
            report.findings.append(_missing_in_package(record))
            continue
        result.bytes += record.size or 0
        found = stored_hash(storage_of(storages, record), record.name)
        if found == record.sha256:
            result.unchanged += 1
        else:
            result.proved = False
            report.findings.append(_file_differs(record, found))
        progress.advance(record.size or 0)
    progress.finish()


def storages_of(package: PackageReader) -> dict[str, Storage]:
    """Return the storages of the file fields that a package covers and this code has, by alias."""
    labels = [entry.label.split(".") for entry in package.manifest.models]
    models = [apps.all_models.get(app_label, {}).get(name) for app_label, name in labels]
    return files.storages_of(model for model in models if model is not None)


def storage_of(storages: dict[str, Storage], record: FileRecord) -> Storage:
    """Return the storage of a package's file. Raises ``PackageUnsupported`` where the code has none."""
    try:
        return storages[record.storage]
    except KeyError as error:
        raise PackageUnsupported(
            f"the file {record.name!r} belongs to storage {record.storage!r}, which no file field uses",
            hint=f"the storages in use are {', '.join(sorted(storages)) or 'none'}",
        ) from error


def stored_hash(storage: Storage, name: str) -> str | None:
    """Return the SHA-256 of a stored file, or None where there is none."""
    try:
        return hash_stream(files.read_chunks(storage, name))[2]
    except FileNotFoundError:
        return None
    except SuspiciousOperation as error:
        raise PackageDamaged(f"the package has a file {name!r}, which leads out of its storage") from error
    except OSError as error:
        raise BackupError(f"the file {name!r} cannot be read: {error.strerror or error}") from error


def require_free(package: PackageReader, directory: Path) -> None:
    """Raise ``BackupError`` where a configuration file of a package would overwrite one, or leave the directory."""
    for entry in package.manifest.config:
        path = directory / entry.member.removeprefix("config/")
        if not path.parent.resolve().is_relative_to(directory.resolve()):
            raise BackupError(f"{path.parent} leads out of {directory}", hint="give a directory without symbolic links")
        if path.exists() or path.is_symlink():
            raise BackupError(f"{path} exists", hint="give an empty directory for the configuration files")


def require_writable(package: PackageReader, directory: Path) -> None:
    """Raise ``UsageError`` where the configuration files of a package cannot be written below a directory.

    The directories are made to find that out, and removed again: nothing has been restored yet.
    """
    above = {(directory / entry.member.removeprefix("config/")).parent for entry in package.manifest.config}
    for parent in {directory, *above}:
        missing = [path for path in (parent, *parent.parents) if not os.path.lexists(path)]
        try:
            files.make_private(parent)
            with tempfile.TemporaryFile(dir=parent):
                pass
        except OSError as error:
            raise UsageError(
                f"configuration files cannot be written to {parent}: {error.strerror or error}",
                hint="give a directory that this account may make, or write to",
            ) from error
        finally:
            for path in missing:
                with suppress(OSError):  # it was not made
                    path.rmdir()


def restore_config(package: PackageReader, directory: Path) -> None:
    """Write the configuration files of a package below ``directory``, private to their owner; none is overwritten."""
    for entry in package.manifest.config:
        path = directory / entry.member.removeprefix("config/")
        files.make_private(path.parent)
        with open(path, "xb", opener=_private) as file:
            file.write(package.read_config(entry))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _missing_in_package(record: FileRecord) -> Finding:
    return Finding(
        severity=Severity.WARNING,
        code="file_missing",
        identity=[record.storage, record.name],
        message="the file was missing already when the package was made",
    )


def _file_differs(record: FileRecord, found: str | None) -> Finding:
    return Finding(
        severity=Severity.ERROR,
        code="file_missing" if found is None else "file_differs",
        identity=[record.storage, record.name],
        field="sha256",
        expected=record.sha256,
        found=found,
        message="the storage does not have the file" if found is None else "the file is not the package's",
    )
