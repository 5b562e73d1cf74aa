"""Writing a package: one snapshot of the database, the files its rows name, and the configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.core.exceptions import SuspiciousOperation
from django.core.files.storage import Storage
from django.utils import timezone

from backups import conf, databases, files, reports
from backups.errors import BackupError, DifferencesFound, UsageError
from backups.models import CHARACTERS
from backups.package.container import ContentChanged
from backups.package.manifest import FileRecord, FilesEntry, Manifest, ModelEntry
from backups.package.reader import PackageReader
from backups.package.writer import PackageWriter, hash_stream
from backups.records import coverage
from backups.records.digest import digest_of
from backups.records.pages import Page
from backups.records.rows import KeyCache, RowReader
from backups.records.table import Table
from backups.reporting import Finding, ModelResult, NoProgress, Progress, Report, Severity, Verdict
from backups.services import ledger, schema
from backups.services.catalogue import PackageFile, package_name, stored_packages
from backups.services.keys import Encryption
from backups.services.operation import TELLING, announce, finishing, operation, require_migrated, step
from backups.services.safety import note
from backups.services.stored import FileNames, referenced_files
from backups.services.trust import require_own_signature, signing_key
from backups.signals import backup_created


@dataclass(frozen=True, kw_only=True)
class CreateOptions:
    """``output`` is a path to write to in place of the package storage.

    A row that names a file which the storage does not have stops the backup, unless ``allow_missing_files``: then
    the package says which are missing.

    The package is encrypted to ``encrypt_to`` and ``BACKUPS["RECIPIENTS"]``, or with ``passphrase`` alone.
    """

    using: str = "default"
    output: Path | None = None
    allow_missing_files: bool = False
    note: str = ""
    encrypt_to: Sequence[str] = ()
    passphrase: str = field(default="", repr=False)


def create_backup(options: CreateOptions, progress: Progress | None = None) -> Report:
    """Write a package of the database and prove that what was written can be read.

    Raises ``DifferencesFound`` where rows name files that do not exist, ``TargetNotReady`` where migrations are
    pending, another operation runs or a table has no part in transactions, ``UsageError`` for a note or a path that
    cannot be catalogued. Once the package is published, what fails is a finding.
    """
    _require_storable(options)
    report = Report(operation="create", database=options.using, options={"note": options.note})
    with operation(report):
        require_migrated(options.using)
        with finishing(report, "adding the package, which is whole, to the catalogue"):
            write_package(report, options, kind="backup", progress=progress or NoProgress())
        with finishing(report, "looking for packages from later than now"):
            report.findings += _from_later()
        with finishing(report, TELLING):
            announce(backup_created, report)
    return report


def _from_later() -> list[Finding]:
    return [
        Finding(
            severity=Severity.WARNING,
            code="clock_behind",
            identity=[package.name],
            message="a package is from later than now: the clock is wrong or was, and latest may mean that one",
        )
        for package in stored_packages()
        if package.created > timezone.now()
    ]


def _require_storable(options: CreateOptions) -> None:
    """Raise ``UsageError`` for what the catalogue of some engine would not take, before there is a package."""
    output = str(options.output.absolute()) if options.output else ""
    for name, text in (("note", options.note), ("path", output)):
        if len(text) > CHARACTERS:
            raise UsageError(
                f"the {name} has {len(text)} characters, and the catalogue takes {CHARACTERS}",
                hint="give a shorter one",
            )
        if not conf.is_text(text) or "\0" in text:
            raise UsageError(f"the {name} {text!r} is not text that a database takes", hint="give one in UTF-8")


def take_safety_backup(
    operation: Report, progress: Progress, *, allow_missing_files: bool = True, touched: Iterable[tuple[str, str]] = ()
) -> str:
    """Write a package of what an operation is about to destroy, inside its transaction; return the package's name.

    ``touched`` are storage and name of the files that it will write or remove. Those that no row names are in the
    package as well, or said not to be there. Raises ``TargetNotReady`` where it could not be restored afterwards.
    """
    require_own_signature()
    report = Report(operation="create", database=operation.database)
    options = CreateOptions(using=operation.database, allow_missing_files=allow_missing_files)
    return write_package(
        report, options, kind="safety", progress=progress, touched=touched, publishing=partial(note, operation.id.hex)
    )


def write_package(
    report: Report,
    options: CreateOptions,
    *,
    kind: str,
    progress: Progress,
    touched: Iterable[tuple[str, str]] = (),
    publishing: Callable[[str], None] = lambda name: None,
) -> str:
    """Write, check and publish a package; fill in ``report`` and return the package's name.

    Inside a transaction of the caller, the package shows what that transaction sees. ``publishing`` is told the name
    before there is a file that has it.
    """
    encryption, key = Encryption.wanted(options.encrypt_to, options.passphrase), signing_key()
    package = PackageFile(options.output, encryption)
    try:
        manifest = _Snapshot(report, options, kind, progress, key).write(package, touched)
        with step(report, "check"), PackageReader(package.path) as written:
            written.check(progress)
        if encryption:
            with step(report, "encrypt"):
                package.seal()
        size = package.size
        name = package_name(kind, manifest.created, manifest.id, encrypted=encryption is not None)
        publishing(name)
        try:
            package.publish(name)
        finally:
            if package.published:
                report.package, report.verdict = package.published, Verdict.PROVED
    finally:
        package.discard()
    reports.add_to_catalogue(
        report, kind=kind, package_id=manifest.id, created=manifest.created, size=size, note=options.note
    )
    return report.package


def write_pages(
    writer: PackageWriter, table: Table, pages: Iterable[Page], progress: Progress, *, next_key: int | None
) -> ModelEntry:
    """Write the records of one table."""
    content = 0
    with writer.model(table.label) as model:
        for page in pages:
            model.write(page.block, page.rows)
            content += page.content
            progress.advance(page.rows)
    return ModelEntry(
        label=table.label,
        table=table.name,
        rows=model.rows,
        columns=schema.columns(table),
        identity=schema.identity(table),
        references=schema.references(table),
        digest=digest_of(content),
        next_key=next_key,
        chunks=tuple(model.chunks),
    )


class _Snapshot:
    """One package in the making."""

    def __init__(
        self, report: Report, options: CreateOptions, kind: str, progress: Progress, key: Ed25519PrivateKey | None
    ) -> None:
        self.report = report
        self.key = key
        self.options = options
        self.using = options.using
        self.kind = kind
        self.progress = progress
        self.database = databases.of(options.using)
        self.configuration = conf.read()
        self.unnamed = FileNames()

    def write(self, package: PackageFile, touched: Iterable[tuple[str, str]]) -> Manifest:
        """Write everything and return the manifest of the complete package."""
        writer = PackageWriter(package.file, level=self.configuration.compression_level)
        with step(self.report, "read rows"), self.database.snapshot():
            created = timezone.now()
            covered = coverage.of_database(self.using)
            self.database.require_transactional([model._meta.db_table for model in covered.models])
            keys = KeyCache(self.using)
            models = tuple(self._write_table(writer, Table(model), keys) for model in covered.models)
            excluded = ledger.excluded_models(covered, self.using)
            tables = ledger.unknown_tables(covered, self.using)
            migrations = schema.applied_migrations(self.using)
            self.names = referenced_files(covered.models, self.using)
        for name in touched:
            if name not in self.names:
                self.unnamed.add(*name)
        for name in self.unnamed:
            self.names.add(*name)
        with step(self.report, "read files"):
            stored = self._write_files(writer, files.storages_of(covered.models))
        left_out = ledger.findings(covered, excluded, tables, self.unreferenced, self.using)
        self.report.findings += left_out
        manifest = Manifest.build(
            created=created.astimezone(UTC),
            kind=self.kind,
            versions=schema.versions(),
            engine=self.database.engine,
            migrations=migrations,
            models=models,
            excluded=excluded,
            unknown_tables=tables,
            files=stored,
            config=tuple(self._write_config(writer)),
        )
        writer.finish(manifest, self.key)
        return manifest

    def _write_table(self, writer: PackageWriter, table: Table, keys: KeyCache) -> ModelEntry:
        total = self.database.count(table.name)
        self.progress.start(f"read {table.label}", total)
        next_key = self.database.next_key(table.model) if table.has_automatic_key else None
        with closing(RowReader(table, self.using, keys).pages()) as pages:
            entry = write_pages(writer, table, pages, self.progress, next_key=next_key)
        self.progress.finish()
        if entry.rows != total:
            raise BackupError(
                f"{table.label} has {total} rows, but {entry.rows} could be read",
                hint="the snapshot is not consistent; check the database for damage",
            )
        self.report.models.append(
            ModelResult(model=table.label, package=total, before=total, after=total, unchanged=total)
        )
        return entry

    def _write_files(self, writer: PackageWriter, storages: dict[str, Storage]) -> FilesEntry:
        """Write every file that a row names, each content once, and the list of the names."""
        result = self.report.files
        missing: list[FileRecord] = []

        def records() -> Iterator[FileRecord]:
            for alias, name in self.names:
                record = self._write_file(writer, storages[alias], alias, name)
                result.package += not record.is_absent
                result.bytes += record.size or 0
                self.progress.advance(record.size or 0)
                if record.is_missing:
                    missing.append(record)
                yield record

        self.progress.start("read files", unit="bytes")
        index = writer.write_file_index(records())
        self.progress.finish()
        result.missing = len(missing)
        result.proved = True
        self._report_missing(missing)
        self.unreferenced = ledger.unreferenced_files(storages, self.names)
        return FilesEntry(
            count=index.rows if index else 0,
            missing=len(missing),
            unreferenced=self.unreferenced.count,
            bytes=result.bytes,
            index=index,
        )

    def _write_file(self, writer: PackageWriter, storage: Storage, alias: str, name: str) -> FileRecord:
        """Read a file twice: its hash is its name in the package, and the second reading proves that it held still."""
        try:
            size, crc32, sha256 = hash_stream(_read(storage, alias, name))
        except FileNotFoundError:
            absent = 0 if (alias, name) in self.unnamed else None
            return FileRecord(storage=alias, name=name, size=absent, sha256=None)
        try:
            writer.add_file(sha256, size, crc32, _read(storage, alias, name))
        except (FileNotFoundError, ContentChanged) as error:  # the member has begun: there is no way back
            raise BackupError(
                f"the file {name!r} in storage {alias!r} changed while it was read",
                hint="try again when nobody writes it",
            ) from error
        except OSError as error:
            raise BackupError(
                f"the package cannot be written: {error.strerror or error}", hint="see the disk that it is written to"
            ) from error
        return FileRecord(storage=alias, name=name, size=size, sha256=sha256)

    def _report_missing(self, missing: Sequence[FileRecord]) -> None:
        allowed = self.options.allow_missing_files
        self.report.findings += [
            Finding(
                severity=Severity.WARNING if allowed else Severity.ERROR,
                code="file_missing",
                identity=[record.storage, record.name],
                message="a row names this file, and the storage does not have it",
            )
            for record in missing
        ]
        if missing and not allowed:
            raise DifferencesFound(
                f"{len(missing)} files that rows name do not exist, the first is {missing[0].name!r}",
                hint="bring them back, or use --allow-missing-files for a package that says which are missing",
            )

    def _write_config(self, writer: PackageWriter) -> list[Any]:
        entries = []
        for name in sorted(self.configuration.config_files):
            path = self.configuration.config_root / name
            if path.is_file():
                entries.append(writer.add_config(name, path.read_bytes(), path.stat().st_mode & 0o777))
            else:
                self.report.findings.append(
                    Finding(
                        severity=Severity.INFO,
                        code="config_absent",
                        identity=[name],
                        message="BACKUPS['CONFIG_FILES'] names this file, and it does not exist",
                    )
                )
        return entries


def _read(storage: Storage, alias: str, name: str) -> Iterator[bytes]:
    """Read a stored file, and say of what cannot be read that it was that. Raises ``FileNotFoundError`` as it is."""
    try:
        yield from files.read_chunks(storage, name)
    except FileNotFoundError:
        raise
    except SuspiciousOperation as error:
        raise BackupError(
            f"a row names the file {name!r}, which leads out of storage {alias!r}",
            hint="correct the row; what such a name means cannot be backed up",
        ) from error
    except OSError as error:
        raise BackupError(
            f"the file {name!r} in storage {alias!r} cannot be read: {error}",
            hint="a package without it would not be a backup; mend the storage and try again",
        ) from error
