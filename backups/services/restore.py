"""Bringing a package back: plan, load, repair references, prove, commit; or nothing at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from django.apps import apps
from django.contrib.contenttypes.models import ContentType
from django.db.models import Model

from backups import databases, reports
from backups.errors import TargetNotReady
from backups.records.record import Record
from backups.records.table import Table
from backups.reporting import Finding, ModelResult, NoProgress, Progress, Report, Severity, Verdict, printable
from backups.services.catalogue import Undoing, find_undo
from backups.services.convert import Conversion, open_package
from backups.services.create import take_safety_backup
from backups.services.keys import Keys
from backups.services.load import Loader
from backups.services.operation import (
    TELLING,
    announce,
    finishing,
    opened,
    operation,
    require_migrated,
    step,
    warn_of_leftovers,
    warn_of_unfinished,
)
from backups.services.plan import CHANGED, CREATED, SKIPPED, UNCHANGED, Mode, OnMissing, Plan, TablePlan
from backups.services.proof import Extras, Prover
from backups.services.safety import settle
from backups.services.source import Source
from backups.services.stored import FileRestore, require_free, require_writable, restore_config
from backups.services.trust import require_trusted
from backups.signals import restore_finished


@dataclass(frozen=True, kw_only=True)
class RestoreOptions:
    """``package`` is a path, a catalogue name or ``latest``.

    ``config_to`` is a directory to put the package's configuration files in; without it they stay in the package.
    With ``undo``, the package is a safety backup whose operation is undone: the files that it made are removed. It is
    refused where another operation has changed something since that was found.
    """

    package: str
    using: str = "default"
    mode: Mode = Mode.MERGE
    undo: Undoing | None = None
    on_missing: OnMissing = OnMissing.FAIL
    dry_run: bool = False
    safety_backup: bool = True
    config_to: Path | None = None
    allow_schema_differences: bool = False
    keys: Keys = field(default_factory=Keys)
    conversion: Conversion = field(default_factory=Conversion)


class _RolledBack(Exception):
    """Leaves the transaction, and goes no further."""


def restore(options: RestoreOptions, progress: Progress | None = None) -> Report:
    """Restore a package and prove it row by row before anything is committed.

    The report's verdict says what happened: ``proved``, or ``rolled_back`` with the findings that stood in the way.
    Raises ``PackageDamaged``, ``PackageLocked``, ``PackageUntrusted``, ``PackageUnsupported`` or ``TargetNotReady``,
    each before anything is written.
    """
    report = Report(operation="restore", database=options.using, package=options.package, options=_as_data(options))
    progress = progress or NoProgress()
    with opened(report, options.keys) as (path, name), operation(report):
        report.package = name
        require_migrated(options.using)
        if options.undo is not None:
            _require_last(options.undo, report)
        conversion = replace(options.conversion, on_missing=options.on_missing)
        with open_package(path, report, conversion, progress) as package:
            require_trusted(package, name)
            with step(report, "check package"):
                package.check(progress)
            source = Source(package, options.using, allow_differences=options.allow_schema_differences)
            report.findings += source.findings
            _Restore(report, options, source, progress).run()
        if not options.dry_run:
            with finishing(report, TELLING):
                announce(restore_finished, report)
    return report


def _require_last(undo: Undoing, report: Report) -> None:
    """Say what is undone, and raise ``TargetNotReady`` where that is not the last change any more."""
    if find_undo(report.database).package != undo.package:
        raise TargetNotReady(
            f"another operation has changed something since it was to undo {undo}", hint="look again, with --dry-run"
        )
    report.findings.append(
        Finding(
            severity=Severity.INFO if undo.operation else Severity.WARNING,
            code="undone" if undo.operation else "undone_unknown",
            identity=[undo.package],
            message=f"this undoes {undo}",
        )
    )


def _as_data(options: RestoreOptions) -> dict[str, object]:
    return {
        "mode": str(options.mode),
        "undo": options.undo is not None,
        "on_missing": str(options.on_missing),
        "dry_run": options.dry_run,
        "safety_backup": options.safety_backup,
        "allow_schema_differences": options.allow_schema_differences,
        "config_to": printable(str(options.config_to)) if options.config_to else None,
        **options.conversion.as_data(),
    }


class _Restore:
    def __init__(self, report: Report, options: RestoreOptions, source: Source, progress: Progress) -> None:
        self.report = report
        self.options = options
        self.source = source
        self.package = source.package
        self.progress = progress
        self.database = databases.of(options.using)
        self.results: dict[str, ModelResult] = {}
        self.files = FileRestore(source.package, report, progress, undo=options.undo is not None)
        self.next_keys: dict[type[Model], int] = {}
        self.changes = False
        self.taken = ""

    def run(self) -> None:
        tables = [apps.get_model(entry.label)._meta.db_table for entry in self.source.entries]
        if self.options.config_to is not None:
            require_writable(self.package, self.options.config_to)
            require_free(self.package, self.options.config_to)
        try:
            with self.database.exclusive(tables):
                self._inside_transaction()
                reports.mark_committed(self.report, self.options.using, changed=self.changes, safety_backup=self.taken)
        except BaseException as error:
            # What comes after the commit, even Ctrl-C, finds the work done.
            if reports.is_committed(self.report, self.options.using):
                warn_of_unfinished(self.report, "the end of the transaction", error)
            else:
                # Nothing has changed, so that there is nothing to go back to.
                self._settle(committed=False)
                self.report.options["safety_backup"] = self.options.safety_backup
                if isinstance(error, _RolledBack):
                    return
                raise
        finally:
            ContentType.objects.clear_cache()
        self.report.verdict = Verdict.PROVED
        with finishing(self.report, "removing temporary files"):
            self._settle(committed=True)
        with finishing(self.report, "keeping primary keys that were given away from being given again"):
            self.database.after_commit(self.next_keys)
        if self.options.config_to is not None:
            with finishing(self.report, f"writing configuration files to {self.options.config_to}"):
                restore_config(self.package, self.options.config_to)

    def _settle(self, *, committed: bool) -> None:
        left = settle(self.report.id.hex, self.files.changes, self.options.using, committed=committed)
        warn_of_leftovers(self.report, left)

    def _inside_transaction(self) -> None:
        report, options = self.report, self.options
        with step(report, "plan"):
            plan = Plan(
                self.source,
                options.using,
                mode=options.mode,
                on_missing=options.on_missing,
                progress=self.progress,
            )
            report.findings += plan.findings
            report.models = [self._result(table) for table in plan.tables.values()]
            self.files.plan()
        try:
            self.changes = plan.changes_anything or self.files.changes_anything
            if options.dry_run:
                self._stop_on_errors()
                report.verdict = Verdict.DIFFERENCES if self.changes else Verdict.PROVED
                raise _RolledBack
            self._stop_on_errors()
            if self.changes and options.safety_backup:
                with step(report, "safety backup"):
                    self.taken = take_safety_backup(report, self.progress, touched=self.files.touched)
                    report.options["safety_backup"] = self.taken
            if plan.changes_anything:
                self.next_keys = plan.next_keys
                self._change(plan)
            with step(report, "verify"):
                self._verify(plan)
            self._stop_on_errors()
            # Before the commit: a place that cannot be written rolls everything back.
            with step(report, "files"):
                self.files.stage(options.using)
                self.files.apply()
            self._stop_on_errors()
        finally:
            plan.close()

    def _change(self, plan: Plan) -> None:
        report = self.report
        loader = Loader(plan, self.progress)
        with step(report, "load"):
            loader.load()
            report.findings += loader.findings
        self._stop_on_errors()
        with step(report, "constraints"):
            report.findings += loader.violations()
        self._stop_on_errors()

    def _stop_on_errors(self) -> None:
        if self.report.has_errors:
            self.report.verdict = Verdict.ROLLED_BACK
            for result in self.report.models:
                result.after = result.before
                result.proved = False
            raise _RolledBack

    def _result(self, plan: TablePlan) -> ModelResult:
        result = ModelResult(
            model=plan.table.label,
            package=plan.package_rows,
            before=plan.before,
            created=plan.count(CREATED),
            updated=plan.count(CHANGED),
            unchanged=plan.count(UNCHANGED),
            deleted=plan.deleted,
        )
        result.after = result.before + result.created - result.deleted
        self.results[plan.table.label] = result
        return result

    def _verify(self, plan: Plan) -> None:
        """Read back what was written and compare it with the package, record by record."""
        prover = Prover(self.options.using, plan.scratch, plan.twins, self.progress)
        for label, table_plan in plan.tables.items():
            table, result = table_plan.table, self.results[label]
            expected_rows = result.after
            is_verbatim = self._is_verbatim(prover, plan, table_plan)
            result.after = table_plan.package_rows if is_verbatim else self.database.count(table.name)
            if result.after != expected_rows:
                self.report.findings.append(_wrong_count(table, expected_rows, result.after))
            findings: Sequence[Finding] = ()
            if not is_verbatim:
                findings, _ = prover.differences(
                    table,
                    result.after,
                    partial(_expected, plan, label),
                    self._extras(plan, label),
                )
            self.report.findings += findings
            result.proved = result.after == expected_rows and not any(
                finding.severity is Severity.ERROR for finding in findings
            )

    def _is_verbatim(self, prover: Prover, plan: Plan, table_plan: TablePlan) -> bool:
        table = table_plan.table
        if not table_plan.is_verbatim or not self.source.is_as_written(table.label):
            return False

        def expected_keys(record: Record) -> tuple[Any, dict[str, Any]]:
            return plan.target_key(table.label, record.pk), plan.references(table, record)

        blocks = self.source.blocks(table.label)
        return prover.is_verbatim(table, table_plan.package_rows, blocks, expected_keys, plan.moved(table))

    def _extras(self, plan: Plan, label: str) -> Extras:
        if label in plan.append_only:
            return Extras.APPENDED
        return Extras.MAY_STAY if self.options.mode is Mode.MERGE else Extras.DIFFER


def _expected(plan: Plan, label: str) -> Iterator[Record]:
    return (row.record for row in plan.rows(label) if row.action != SKIPPED)


def _wrong_count(table: Table, expected: int, found: int) -> Finding:
    return Finding(
        severity=Severity.ERROR,
        code="rows_miscounted",
        model=table.label,
        expected=expected,
        found=found,
        message="the table does not have the number of rows that it should have now",
    )
