"""Comparing a live system with a package, at any time, without changing anything."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from django.apps import apps

from backups import conf, databases
from backups.package.manifest import ModelEntry
from backups.records.record import Record
from backups.records.scratch import Scratch
from backups.records.table import Table
from backups.records.twins import Twins
from backups.reporting import Finding, ModelResult, NoProgress, Progress, Report, Severity, Verdict
from backups.services.convert import Conversion, open_package
from backups.services.keys import Keys
from backups.services.operation import opened, operation, require_migrated, step
from backups.services.proof import Extras, Prover
from backups.services.source import Source
from backups.services.stored import compare_files
from backups.services.trust import require_trusted


@dataclass(frozen=True, kw_only=True)
class ValidateOptions:
    """``package`` is a path, a catalogue name or ``latest``.

    With ``allow_extra``, rows that the package does not have are no difference: for a system that a package was
    merged into. With ``quick``, a table's digest is compared, not its rows: it says whether they differ, and not how.
    """

    package: str
    using: str = "default"
    allow_extra: bool = False
    quick: bool = False
    allow_schema_differences: bool = False
    keys: Keys = field(default_factory=Keys)
    conversion: Conversion = field(default_factory=Conversion)


def validate_restore(options: ValidateOptions, progress: Progress | None = None) -> Report:
    """Compare every row, value, relation and file of a package with the live system.

    The report's verdict is ``proved`` or ``differences``. Raises ``PackageDamaged``, ``PackageLocked``,
    ``PackageUntrusted``, ``PackageUnsupported`` or ``TargetNotReady``.
    """
    using = options.using
    report = Report(
        operation="validate",
        database=using,
        package=options.package,
        options={
            "allow_extra": options.allow_extra,
            "quick": options.quick,
            "allow_schema_differences": options.allow_schema_differences,
            **options.conversion.as_data(),
        },
    )
    progress = progress or NoProgress()
    with opened(report, options.keys) as (path, name), operation(report):
        report.package = name
        require_migrated(using)
        with open_package(path, report, options.conversion, progress) as package:
            require_trusted(package, name)
            if not options.quick:  # which reads no row of the package
                with step(report, "check package"):
                    package.check(progress)
            source = Source(package, using, allow_differences=options.allow_schema_differences)
            report.findings += source.findings
            with step(report, "compare rows"), databases.of(using).snapshot():
                _compare_rows(report, source, options, progress)
            with step(report, "compare files"):
                compare_files(report, package, progress)
        report.verdict = Verdict.DIFFERENCES if report.has_errors else Verdict.PROVED
    return report


def _compare_rows(report: Report, source: Source, options: ValidateOptions, progress: Progress) -> None:
    scratch = Scratch()
    twins = Twins(scratch, lambda table: source.records(table.label))
    prover = Prover(options.using, scratch, twins, progress)
    database = databases.of(options.using)
    append_only = {apps.get_model(label)._meta.label_lower for label in conf.read().append_only}
    for entry in source.entries:
        table = Table(apps.get_model(entry.label))
        rows = database.count(table.name)
        result = ModelResult(model=entry.label, package=entry.rows, before=rows, after=rows)
        report.models.append(result)
        if options.quick and entry.label not in append_only and source.is_as_written(entry.label):
            findings = _compare_digests(entry, prover.digest(table, rows), result)
            report.findings += findings
            result.proved = not findings
            continue
        as_written = rows == entry.rows and source.is_as_written(entry.label)
        if as_written and _is_verbatim(prover, table, rows, source.blocks(entry.label)):
            result.unchanged, result.proved = rows, True
            continue
        extras = Extras.MAY_STAY if options.allow_extra else Extras.DIFFER
        if entry.label in append_only:
            extras = Extras.APPENDED
        findings, result.unchanged = prover.differences(table, rows, partial(source.records, entry.label), extras)
        report.findings += findings
        result.proved = not any(finding.severity is Severity.ERROR for finding in findings)
    scratch.close()


def _is_verbatim(prover: Prover, table: Table, rows: int, blocks: Iterable[bytes]) -> bool:
    moved = prover.moved(table)

    def expected_keys(record: Record) -> tuple[Any, dict[str, Any]]:
        return record.pk, {name: moved.get(name, {}).get(key, key) for name, key in record.refs.items()}

    return prover.is_verbatim(table, rows, blocks, expected_keys, moved)


def _compare_digests(entry: ModelEntry, found: str, result: ModelResult) -> list[Finding]:
    """Compare what a package says of a table's content with the content; which rows differ, only rows can tell."""
    if found == entry.digest:
        result.unchanged = result.before
        return []
    return [
        Finding(
            severity=Severity.ERROR,
            code="content_differs",
            model=entry.label,
            expected=entry.digest,
            found=found,
            message="the table's content is not the package's; without --quick, validation names the rows",
        )
    ]
