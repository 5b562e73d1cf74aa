"""Comparing a live system with a package, at any time, without changing anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from django.apps import apps

from backups import conf, databases
from backups.package.reader import PackageReader
from backups.records.comparison import Scratch, Twins
from backups.records.record import Record, parse
from backups.records.table import Table
from backups.reporting import ModelResult, NoProgress, Progress, Report, Severity, Verdict
from backups.services.catalogue import package_path
from backups.services.convert import Conversion, open_package
from backups.services.keys import Keys
from backups.services.operation import operation, require_migrated, step
from backups.services.proof import Extras, Prover
from backups.services.schema import require_same_schema
from backups.services.stored import compare_files
from backups.services.trust import require_trusted


@dataclass(frozen=True, kw_only=True)
class ValidateOptions:
    """``package`` is a path, a catalogue name or ``latest``.

    With ``allow_extra``, rows that the package does not have are no difference: for a system that a package was
    merged into.
    """

    package: str
    using: str = "default"
    allow_extra: bool = False
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
        options={"allow_extra": options.allow_extra, **options.conversion.as_data()},
    )
    progress = progress or NoProgress()
    with package_path(options.package, options.keys) as (path, name), operation(report):
        report.package = name
        require_migrated(using)
        with open_package(path, report, options.conversion, progress) as package:
            require_trusted(package, name)
            with step(report, "check package"):
                package.check(progress)
            require_same_schema(package.manifest, using)
            with step(report, "compare rows"), databases.of(using).snapshot():
                _compare_rows(report, package, options, progress)
            with step(report, "compare files"):
                compare_files(report, package, progress)
        report.verdict = Verdict.DIFFERENCES if report.has_errors else Verdict.PROVED
    return report


def _records(package: PackageReader, label: str) -> Iterator[Record]:
    return (parse(line, label) for line in package.lines(label))


def _same_keys(record: Record) -> tuple[Any, dict[str, Any]]:
    return record.pk, record.refs


def _compare_rows(report: Report, package: PackageReader, options: ValidateOptions, progress: Progress) -> None:
    scratch = Scratch()
    twins = Twins(scratch, lambda table: _records(package, table.label))
    prover = Prover(options.using, scratch, twins, progress)
    database = databases.of(options.using)
    append_only = {apps.get_model(label)._meta.label_lower for label in conf.read().append_only}
    for entry in package.manifest.models:
        table = Table(apps.get_model(entry.label))
        rows = database.count(table.name)
        result = ModelResult(model=entry.label, package=entry.rows, before=rows, after=rows)
        report.models.append(result)
        if rows == entry.rows and prover.is_verbatim(table, package.lines(entry.label), _same_keys):
            result.unchanged, result.proved = rows, True
            continue
        extras = Extras.MAY_STAY if options.allow_extra else Extras.DIFFER
        if entry.label in append_only:
            extras = Extras.APPENDED
        findings = prover.differences(table, partial(_records, package, entry.label), extras)
        report.findings += findings
        result.proved = not any(finding.severity is Severity.ERROR for finding in findings)
    scratch.close()
