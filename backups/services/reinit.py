"""Emptying a system and letting it rebuild its baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.contrib.contenttypes.models import ContentType
from django.core.management.sql import emit_post_migrate_signal
from django.db import IntegrityError
from django.db.models import Model

from backups import databases, files, reports
from backups.databases.base import Database
from backups.errors import BackupError
from backups.records import coverage
from backups.reporting import Finding, ModelResult, NoProgress, Progress, Report, Severity, Verdict
from backups.services.create import take_safety_backup
from backups.services.operation import (
    TELLING,
    announce,
    finishing,
    operation,
    require_migrated,
    step,
    warn_of_leftovers,
    warn_of_unfinished,
)
from backups.services.redaction import message_of
from backups.services.safety import settle
from backups.services.stored import referenced_files
from backups.signals import system_reinitialised


@dataclass(frozen=True, kw_only=True)
class ReinitOptions:
    """``safety_backup`` may be False for systems that hold nothing worth keeping."""

    using: str = "default"
    safety_backup: bool = True
    allow_missing_files: bool = False
    dry_run: bool = False


def reinit_system(options: ReinitOptions, progress: Progress | None = None) -> Report:
    """Empty every covered table and its files, and let ``post_migrate`` rebuild the baseline.

    Rows and files go in one transaction: what is deleted is in the safety backup, which is taken and checked first.
    Files that no row names are in no backup, and stay.
    """
    using = options.using
    report = Report(operation="reinit", database=using, options=_as_data(options))
    with operation(report):
        require_migrated(using)
        models = coverage.of_database(using).models
        report.models = _counted(models, using)
        stored = referenced_files(models, using)
        if options.dry_run:
            report.files.deleted = len(stored)
            for result in report.models:
                result.deleted = result.before
            report.verdict = Verdict.DIFFERENCES
            return report
        changes = files.FileChanges(report.id.hex, files.storages_of(models))
        try:
            _empty(report, models, options, changes, progress or NoProgress())
        except BaseException as error:
            # What comes after the commit, even Ctrl-C, finds the work done.
            if reports.is_committed(report, using):
                warn_of_unfinished(report, "the end of the transaction", error)
            else:
                warn_of_leftovers(report, settle(report.id.hex, changes, using, committed=False))
                report.package = ""  # nothing has changed, so that there is nothing to go back to
                raise
        report.files.proved = True
        report.verdict = Verdict.PROVED
        with finishing(report, "removing temporary files"):
            warn_of_leftovers(report, settle(report.id.hex, changes, using, committed=True))
        with finishing(report, TELLING):
            announce(system_reinitialised, report)
    return report


def describe_loss(using: str, consequence: str) -> str:
    """Name the database and count what it holds, for the operator to read before a confirmation."""
    require_migrated(using)
    models = coverage.of_database(using).models
    counts = _counted(models, using)
    rows = sum(result.before for result in counts)
    largest = sorted((result for result in counts if result.before), key=lambda result: -result.before)[:8]
    name, stored = databases.of(using).name, len(referenced_files(models, using))
    return "\n".join(
        [
            f"Database {name!r} ({using}) holds {rows} rows and names {stored} files: {consequence}.",
            *(f"  {result.before:>10}  {result.model}" for result in largest),
        ]
    )


def _as_data(options: ReinitOptions) -> dict[str, object]:
    return {"safety_backup": options.safety_backup, "dry_run": options.dry_run}


def _counted(models: Sequence[type[Model]], using: str) -> list[ModelResult]:
    database = databases.of(using)
    return [ModelResult(model=model._meta.label_lower, before=database.count(model._meta.db_table)) for model in models]


def _empty(
    report: Report,
    models: Sequence[type[Model]],
    options: ReinitOptions,
    changes: files.FileChanges,
    progress: Progress,
) -> None:
    using = options.using
    database = databases.of(using)
    tables = [model._meta.db_table for model in models]
    with database.exclusive(tables):
        report.models = _counted(models, using)  # again: nobody else writes from here on
        if options.safety_backup:
            with step(report, "safety backup"):
                report.package = take_safety_backup(report, progress, allow_missing_files=options.allow_missing_files)
        stored = referenced_files(models, using)
        with step(report, "empty"):
            database.suspend_actions(tables)
            database.empty(tables)
            for model, result in zip(models, report.models, strict=True):
                left = database.count(model._meta.db_table)
                if left:
                    raise BackupError(f"{result.model} still has {left} rows; nothing has changed")
                result.deleted, result.proved = result.before, True
        try:
            with step(report, "baseline"):
                ContentType.objects.clear_cache()
                emit_post_migrate_signal(verbosity=0, interactive=False, db=using)
                _check_constraints(database)
        finally:
            ContentType.objects.clear_cache()  # what it has cached may be rolled back
        for model, result in zip(models, report.models, strict=True):
            result.after = result.created = database.count(model._meta.db_table)
        # Before the commit: a file that cannot be removed rolls everything back.
        with step(report, "files"):
            for alias, name in stored:
                _remove(report, changes, alias, name)
            changes.apply()
        reports.mark_committed(report, using, safety_backup=report.package)


def _check_constraints(database: Database) -> None:
    try:
        database.end_bulk_load()
        database.check_constraints()
    except IntegrityError as error:
        raise BackupError(
            f"rows that packages leave out refer to rows that would be deleted: {message_of(error)}",
            hint="delete those rows first, or take their model out of BACKUPS['EXCLUDE']",
        ) from error


def _remove(report: Report, changes: files.FileChanges, alias: str, name: str) -> None:
    try:
        report.files.deleted += changes.remove(alias, name)
    except BackupError as error:
        finding = Finding(
            severity=Severity.WARNING, code="file_left", identity=[alias, name], message=f"{error}; it was left alone"
        )
        report.findings.append(finding)
