"""Emptying a system and letting it rebuild its baseline."""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib.contenttypes.models import ContentType
from django.core.management.sql import emit_post_migrate_signal

from backups import databases, files
from backups.records import coverage
from backups.reporting import ModelResult, NoProgress, Progress, Report, Verdict
from backups.services.create import CreateOptions, write_package
from backups.services.operation import operation, require_migrated, step
from backups.services.stored import referenced_files
from backups.signals import system_reinitialised


@dataclass(frozen=True, kw_only=True)
class ReinitOptions:
    """``safety_backup`` may be False for systems that hold nothing worth keeping."""

    using: str = "default"
    safety_backup: bool = True
    allow_missing_files: bool = False


def reinit_system(options: ReinitOptions, progress: Progress | None = None) -> Report:
    """Empty every covered table and its files, and let ``post_migrate`` rebuild the baseline.

    Rows go in one transaction, and files after it: what is deleted is in the safety backup, which is taken and
    checked first. Files that no row names are in no backup, and stay.
    """
    using = options.using
    report = Report(operation="reinit", database=using, options={"safety_backup": options.safety_backup})
    with operation(report):
        require_migrated(using)
        models = coverage.of_database(using).models
        database = databases.of(using)
        tables = [model._meta.db_table for model in models]
        with database.exclusive(tables):
            report.models = [
                ModelResult(model=model._meta.label_lower, before=database.count(model._meta.db_table))
                for model in models
            ]
            stored = referenced_files(models, using)
            if options.safety_backup:
                _take_safety_backup(report, options, progress or NoProgress())
            with step(report, "empty"):
                database.empty(tables)
                ContentType.objects.clear_cache()
            with step(report, "baseline"):
                emit_post_migrate_signal(verbosity=0, interactive=False, db=using)
                database.check_constraints()
            for result in report.models:
                _count_baseline(result, database.count(models_by_label(models, result.model)))
        ContentType.objects.clear_cache()
        with step(report, "files"):
            report.files.deleted = len(stored)
            files.delete(stored)
        report.verdict = Verdict.PROVED
    system_reinitialised.send(Report, report=report, using=using)
    return report
