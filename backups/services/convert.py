"""Turning files that are not packages, such as the fixtures of ``dumpdata``, into packages.

The one restorer and the one validator then serve them. What a foreign file does not say is a finding, and nothing is
made up that its rows could be told by.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, cast

from django.apps import apps
from django.db.models import Model
from django.utils import timezone

from backups import conf
from backups.databases.base import limited
from backups.errors import PackageDamaged, UsageError
from backups.files import storage_alias
from backups.package.container import COPY_BYTES, is_allowed
from backups.package.fixtures import FixtureObject
from backups.package.foreign import MAX_CONFIG_BYTES, ForeignFile, ForeignMember, contents, recognise
from backups.package.manifest import ConfigEntry, ExcludedEntry, FileRecord, FilesEntry, Manifest, ModelEntry
from backups.package.reader import PackageReader
from backups.package.writer import PackageWriter, hash_stream
from backups.records import coverage
from backups.records.foreign import FixtureRecords
from backups.records.foreign_objects import FixtureObjects, Policy
from backups.records.identity import natural_key_of, natural_key_parts
from backups.records.jsontext import EXACT_DECODER
from backups.records.lines import page_of
from backups.records.pages import Page
from backups.records.record import Key
from backups.records.rows import CHUNK_ROWS, KeyCache
from backups.records.scratch import Scratch
from backups.records.table import Table
from backups.reporting import Finding, ModelResult, NoProgress, Progress, Report, Severity, Verdict
from backups.services import schema
from backups.services.catalogue import PackageFile, package_path
from backups.services.create import write_pages
from backups.services.keys import Encryption, Keys, open_file_path
from backups.services.operation import operation, require_migrated, step
from backups.services.plan import OnMissing
from backups.services.proof import shown

STORAGE = "default"
"""The storage that the files of a migration package belong to."""


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """How a file that is not a package is read.

    ``mapping`` renames models (``app.model``) and fields (``app.model.field``); what becomes empty is left out. With
    ``trust_keys``, a reference by primary key to a row that is not in the file means the row of the database that has
    this key; without it, it is an error, or what ``on_missing`` says.
    """

    mapping: Mapping[str, str] = field(default_factory=dict)
    trust_keys: bool = False
    on_missing: OnMissing = OnMissing.FAIL

    def as_data(self) -> dict[str, object]:
        return {"map": dict(self.mapping), "trust_keys": self.trust_keys}


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """``source`` is a path, and so is ``output``; without it the package is written beside the source.

    It does not go among the backups, where it would be the latest. ``keys`` open a source that is encrypted.
    """

    source: str
    using: str = "default"
    output: Path | None = None
    keys: Keys = field(default_factory=Keys)
    conversion: Conversion = field(default_factory=Conversion)


def convert(options: ConvertOptions, progress: Progress | None = None) -> Report:
    """Turn a foreign file into a package and prove that what was written can be read.

    It is encrypted to ``BACKUPS["RECIPIENTS"]`` as others are, and not signed: nobody here has made what it says.
    The report's verdict is ``proved``, or ``differences`` where something could not be carried over: then there is no
    package. Raises ``UsageError`` for a file that is a package already, and ``PackageDamaged``.
    """
    report = Report(
        operation="convert",
        database=options.using,
        package=options.source,
        options={**options.conversion.as_data(), "on_missing": str(options.conversion.on_missing)},
    )
    progress = progress or NoProgress()
    with package_path(options.source, options.keys) as (path, _), operation(report):
        require_migrated(options.using)
        foreign = recognise(path)
        if foreign is None:
            raise UsageError(f"{options.source} is a package already", hint="restore_backup takes it as it is")
        encryption = Encryption.wanted((), "")
        beside = f"{options.source}.zip.age" if encryption else f"{options.source}.zip"
        package = PackageFile(options.output or Path(beside), encryption)
        try:
            _convert(foreign, package.file, report, options.conversion, progress)
            with step(report, "check"), PackageReader(package.path) as written:
                written.check(progress)
            if not report.has_errors:
                package.seal()
                report.package = package.publish("")
            report.verdict = Verdict.DIFFERENCES if report.has_errors else Verdict.PROVED
        finally:
            package.discard()
    return report


@contextmanager
def open_package(path: Path, report: Report, conversion: Conversion, progress: Progress) -> Iterator[PackageReader]:
    """Open a package; a foreign file is turned into one first, and what stands in the way is in the report."""
    foreign = recognise(path)
    if foreign is None:
        with PackageReader(path) as package:
            yield package
        return
    with tempfile.TemporaryFile() as file:  # without a name: the foreign file may have been encrypted
        _convert(foreign, cast("BinaryIO", file), report, conversion, progress)
        with PackageReader(open_file_path(cast("BinaryIO", file))) as package:
            yield package


def parse_mapping(pairs: Sequence[str]) -> dict[str, str]:
    """Read renamings: ``old_app.model=new_app.model``, ``app.model.field=new_field``, or nothing after the sign.

    Raises ``UsageError`` for anything else, and for a new name that the code does not have.
    """
    mapping: dict[str, str] = {}
    for pair in pairs:
        old, sign, new = pair.partition("=")
        old, new = old.strip(), new.strip()
        if not sign or old.count(".") not in (1, 2):
            raise UsageError(
                f"{pair!r} renames nothing", hint="write old_app.model=new_app.model or app.model.field=new_field"
            )
        if old.count(".") == 2:
            label, name = old.rsplit(".", 1)
            mapping[f"{label.lower()}.{name}"] = new
            continue
        try:
            mapping[old.lower()] = apps.get_model(new)._meta.label_lower if new else ""
        except (LookupError, ValueError) as error:
            raise UsageError(f"--map names {new!r}, which is not a model", hint="write app.model") from error
    return mapping


def _convert(foreign: ForeignFile, file: BinaryIO, report: Report, conversion: Conversion, progress: Progress) -> None:
    report.options["converted_from"] = str(foreign)
    with step(report, "convert"):
        _Conversion(foreign, file, report, conversion, progress).run()


class _Conversion:
    """One foreign file on its way into a package."""

    def __init__(
        self, foreign: ForeignFile, file: BinaryIO, report: Report, conversion: Conversion, progress: Progress
    ) -> None:
        self.foreign = foreign
        self.report = report
        self.progress = progress
        self.using = report.database
        self.writer = PackageWriter(file, level=conf.read().compression_level)
        covered = coverage.of_database(self.using)
        self.reasons = {one.model._meta.label_lower: one.reason for one in covered.excluded}
        self.objects = FixtureObjects(covered.models, _policy(conversion, self.using))
        self.records = FixtureRecords(self.objects)
        self.files = _Files()
        self.config: list[ConfigEntry] = []
        self.findings: list[Finding] = []

    def run(self) -> None:
        """Write everything."""
        try:
            self._read()
            self.objects.finish()
            self.records.finish()
            models = tuple(self._write(model) for model in self.objects.models)
            stored = self._write_files()
            self._tell()
            manifest = Manifest.build(
                created=timezone.now().astimezone(UTC),
                kind="backup",
                versions=schema.versions(),
                engine={"vendor": self.foreign.kind, "version": self.foreign.format},
                migrations=schema.applied_migrations(self.using),
                models=models,
                excluded=self._excluded(),
                unknown_tables=(),
                files=stored,
                config=tuple(sorted(self.config, key=lambda entry: entry.member)),
            )
            self.writer.finish(manifest)
        finally:
            self.objects.close()
            self.files.close()

    def _read(self) -> None:
        self.progress.start(f"read {self.foreign.kind}", unit="rows")
        for item in contents(self.foreign, EXACT_DECODER):
            if isinstance(item, FixtureObject):
                self.objects.add(item)
                self.progress.advance(1)
            else:
                self._take(item)
        self.progress.finish()

    def _take(self, member: ForeignMember) -> None:
        if member.kind == "storage":
            self._take_file(member)
        elif member.kind == "configuration" and is_allowed(f"config/{member.name}"):
            self.config.append(self.writer.add_config(member.name, member.read(MAX_CONFIG_BYTES), member.mode))
        elif member.kind != "metadata":
            self._find("member_unknown", Severity.WARNING, "a package has no place for this", identity=[member.name])

    def _take_file(self, member: ForeignMember) -> None:
        with tempfile.TemporaryFile() as spool:
            while data := member.stream.read(COPY_BYTES):
                spool.write(data)
            if spool.tell() != member.size:
                raise PackageDamaged(f"storage/{member.name} is cut short")
            size, crc32, sha256 = hash_stream(_again(spool))
            self.writer.add_file(sha256, size, crc32, _again(spool))
        if not self.files.add(member.name, size, sha256):
            raise PackageDamaged(f"storage/{member.name} is there twice")

    def _write(self, model: type[Model]) -> ModelEntry:
        table = Table(model)
        self.progress.start(f"write {table.label}", self.records.rows_of(model))
        entry = write_pages(self.writer, table, self._pages(table), self.progress, next_key=None)
        self.progress.finish()
        rows = entry.rows
        if self.report.operation == "convert":
            self.report.models.append(
                ModelResult(model=table.label, package=rows, before=rows, after=rows, unchanged=rows)
            )
        return entry

    def _pages(self, table: Table) -> Iterator[Page]:
        named = [(field.name, storage_alias(field)) for field in table.file_fields]
        for records in limited(self.records.records(table.model), CHUNK_ROWS, lambda record: record.weight):
            for name, alias in named:
                for record in records:
                    if record.fields[name]:
                        self.files.refer(alias, record.fields[name])
            yield page_of(table, records)

    def _write_files(self) -> FilesEntry:
        """Write the list of the files: those that came along, and of a migration package those that did not."""
        absent = self.files.absent
        if self.foreign.kind == "fixture":
            if absent:
                self._find(
                    "files_absent",
                    Severity.WARNING,
                    f"a fixture holds no files, and its rows name {absent}",
                    found=absent,
                )
            return FilesEntry(count=0, missing=0, unreferenced=0, bytes=0, index=None)
        records = self.files.records()
        index = self.writer.write_file_index(records)
        entry = FilesEntry(count=self.files.count, missing=absent, unreferenced=0, bytes=self.files.bytes, index=index)
        if self.report.operation == "convert":
            result = self.report.files
            result.package, result.missing, result.bytes, result.proved = entry.count, absent, entry.bytes, True
            if absent:
                self._find(
                    "file_missing", Severity.WARNING, "rows name files that the archive does not have", found=absent
                )
        return entry

    def _excluded(self) -> tuple[ExcludedEntry, ...]:
        counted = {label: (rows, self._reason(label)) for label, rows in self.objects.excluded.items()}
        return tuple(
            ExcludedEntry(label=label, rows=rows, reason=why) for label, (rows, why) in sorted(counted.items())
        )

    def _reason(self, label: str) -> str:
        return self.reasons.get(label, "its table is not in this database")

    def _tell(self) -> None:
        """Report what was not carried over."""
        for label, rows in sorted(self.objects.excluded.items()):
            self._find("model_excluded", Severity.INFO, self._reason(label), model=label, found=rows)
        for label, rows in sorted(self.objects.dropped.items()):
            self._find("model_left_out", Severity.WARNING, "left out, as was asked", model=label, found=rows)
        for label, rows in sorted(self.objects.unknown.items()):
            self._find(
                "model_unknown",
                Severity.ERROR,
                "the code does not have this model; --map OLD=NEW renames it, --map OLD= leaves it out",
                model=label,
                found=rows,
            )
        self.report.findings += [*self.findings, *map(_redacted, self.objects.findings)]

    def _find(self, code: str, severity: Severity, message: str, **details: Any) -> None:
        self.findings.append(Finding(severity=severity, code=code, message=message, **details))


class _Files:
    """The stored files that came along and those that rows name, in bounded memory."""

    def __init__(self) -> None:
        self._scratch = Scratch()
        self._sql = self._scratch.connection
        self._sql.execute(
            "CREATE TABLE files (storage TEXT, name TEXT, size INTEGER, sha256 TEXT, PRIMARY KEY (storage, name))"
        )

    def add(self, name: str, size: int, sha256: str) -> bool:
        """Add a file that is there; return False where it was added before."""
        cursor = self._sql.execute("INSERT OR IGNORE INTO files VALUES (?, ?, ?, ?)", (STORAGE, name, size, sha256))
        return cursor.rowcount == 1

    def refer(self, storage: str, name: str) -> None:
        """Add a file that a row names, and that may not be there."""
        self._sql.execute("INSERT OR IGNORE INTO files VALUES (?, ?, NULL, NULL)", (storage, name))

    @property
    def count(self) -> int:
        return self._number("COUNT(*)")

    @property
    def absent(self) -> int:
        return self._number("COUNT(*) - COUNT(sha256)")

    @property
    def bytes(self) -> int:
        return self._number("COALESCE(SUM(size), 0)")

    def records(self) -> Iterator[FileRecord]:
        rows = self._sql.execute("SELECT storage, name, size, sha256 FROM files ORDER BY storage, name")
        return (FileRecord(storage=storage, name=name, size=size, sha256=sha) for storage, name, size, sha in rows)

    def close(self) -> None:
        self._scratch.close()

    def _number(self, expression: str) -> int:
        return int(self._sql.execute(f"SELECT {expression} FROM files").fetchone()[0])  # noqa: S608


def _redacted(finding: Finding) -> Finding:
    """Hide a value, and the reason against it, which quotes it, where the field is a sensitive one."""
    expected, found = shown(finding.field, finding.expected), finding.found
    return replace(finding, expected=expected, found=found if expected == finding.expected else expected)


def _again(spool: Any) -> Iterator[bytes]:
    spool.seek(0)
    while data := spool.read(COPY_BYTES):
        yield data


def _policy(conversion: Conversion, using: str) -> Policy:
    return Policy(
        mapping=conversion.mapping,
        null=conversion.on_missing is OnMissing.NULL,
        skip=conversion.on_missing is OnMissing.SKIP,
        outside=_Outside(using) if conversion.trust_keys else None,
    )


class _Outside:
    """Tells which row of the database a primary key means, for an operator who knows that it is the same one."""

    def __init__(self, using: str) -> None:
        self._using = using
        self._keys = KeyCache(using)
        self._known = lru_cache(maxsize=KeyCache.LIMIT)(self._find)

    def __call__(self, model: type[Model], pk: Any, natural: bool) -> Key | None:
        return self._known(model, pk, natural)

    def _find(self, model: type[Model], pk: Any, natural: bool) -> Key | None:
        if not natural or natural_key_parts(model) is None:
            return self._keys.identities(model, {pk}).get(pk)
        found = model._base_manager.using(self._using).filter(pk=pk).first()
        return natural_key_of(found) if found is not None else None
