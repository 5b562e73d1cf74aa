"""Keeping reports and catalogue in the database. Where it has no tables for them, nothing is kept."""

from __future__ import annotations

import json
import os
import pwd
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from typing import Any

from django.db import Error, connections, transaction
from django.db.models import QuerySet
from django.utils import timezone

from backups import databases
from backups.models import CHARACTERS, Backup, ModelReport, ReportFinding, RestoreReport
from backups.reporting import Report, Verdict, as_data, printable

BATCH_ROWS = 500
VALUE_CHARACTERS = 2000
"""A finding's value is cut here: a report is read by people."""


def start(report: Report, using: str) -> bool:
    """Write the report before the operation begins, so that a killed one leaves a trace."""
    if not _has_tables(using):
        return False
    RestoreReport(
        id=report.id,
        operation=report.operation,
        package=_fitting(report.package),
        database=report.database,
        started=timezone.now(),
        account=_account(),
        host=socket.gethostname(),
        process=os.getpid(),
        options=report.options,
    ).save(using=using, force_insert=True)
    return True


def finish(report: Report, using: str) -> bool:
    """Complete the report after the operation's end, whatever that was; return whether that could be done.

    Where the database has gone, the report stays as it was started, and is found interrupted. Nothing is left to be
    cleared up after an operation that has not failed: it is enough if the database is there again.
    """
    try:
        return _complete(report, using)
    except Error:
        if report.verdict is Verdict.FAILED:
            return False
    with suppress(Error):
        connections[using].close()
    with suppress(Error):
        return _complete(report, using)
    return False


def _complete(report: Report, using: str) -> bool:
    stored = RestoreReport.objects.using(using).filter(id=report.id).first() if _has_tables(using) else None
    if stored is None or stored.state == RestoreReport.State.FINISHED:
        return stored is not None
    data = as_data(report)
    stored.state = RestoreReport.State.FINISHED
    stored.verdict = report.verdict
    stored.package = _fitting(report.package)
    stored.finished = timezone.now()
    stored.seconds = report.seconds
    stored.options = data["options"]
    stored.steps = data["steps"]
    stored.files = data["files"]
    stored.error = report.error
    with transaction.atomic(using=using):
        stored.save(using=using)
        ModelReport.objects.using(using).bulk_create(
            (ModelReport(report=stored, **asdict(result)) for result in report.models), batch_size=BATCH_ROWS
        )
        ReportFinding.objects.using(using).bulk_create(
            (_finding(stored, finding) for finding in data["findings"]), batch_size=BATCH_ROWS
        )
    return True


def running(using: str, purpose: str) -> str:
    """Describe the operation that is running: which one, since when and who runs it. Empty where nobody knows."""
    if not _has_tables(using):
        return ""
    report = _running(using, purpose).first()
    if report is None:
        return ""
    return f"{report.operation} since {report.started:%Y-%m-%d %H:%M:%S} UTC by {report.account} on {report.host}"


def last_drill(using: str) -> tuple[bool, datetime | None]:
    """Return whether reports are kept, and when a drill with a package of this system last proved it.

    A demonstration does not count: it rehearses with data of its own. Raises ``DatabaseError``.
    """
    if not _has_tables(using):
        return False, None
    drills = RestoreReport.objects.using(using).filter(operation="drill", verdict=Verdict.PROVED, options__demo=False)
    return True, drills.order_by("-started").values_list("started", flat=True).first()


def interrupted(using: str, purpose: str) -> list[RestoreReport]:
    """Return the reports of operations that died. To be called by who holds the lock, so that none is running."""
    return list(_running(using, purpose)) if _has_tables(using) else []


def finished(using: str, keys: Sequence[str]) -> list[RestoreReport]:
    """Return those of some reports, by the hexadecimal digits of their ids, whose operation has said that it ended."""
    if not keys or not _has_tables(using):
        return []
    return list(RestoreReport.objects.using(using).filter(id__in=keys, state=RestoreReport.State.FINISHED))


def options_of_interrupted(using: str, operation: str, option: str) -> set[str]:
    """Return the values that an option had in operations that died."""
    if not _has_tables(using):
        return set()
    dead = RestoreReport.objects.using(using).filter(operation=operation, state=RestoreReport.State.INTERRUPTED)
    return {options[option] for options in dead.values_list("options", flat=True) if option in options}


def mark_interrupted(report: RestoreReport, outcome: str, using: str) -> None:
    """Say of an operation that died what has become of its work."""
    RestoreReport.objects.using(using).filter(id=report.id).update(
        state=RestoreReport.State.INTERRUPTED, finished=timezone.now(), error=outcome
    )


def mark_committed(report: Report, using: str, *, changed: bool = True, safety_backup: str = "") -> None:
    """Note that an operation's work is done; inside its transaction, so that the note is there if the work is.

    What has changed something is numbered, because clocks are set back; undoing begins with the last one.
    """
    if not _has_tables(using):
        return
    last = last_change(using)
    number = (last.change or 0) + 1 if last else 1
    RestoreReport.objects.using(using).filter(id=report.id).update(
        committed=True, change=number if changed else None, safety_backup=safety_backup
    )


def last_change(using: str) -> RestoreReport | None:
    """Return the report of the last operation that changed something and was committed. Raises ``DatabaseError``."""
    if not _has_tables(using):
        return None
    return RestoreReport.objects.using(using).filter(change__isnull=False).order_by("-change").first()


def is_committed(report: Report, using: str) -> bool:
    """Return whether an operation's transaction was committed. Raises ``DatabaseError`` where nobody can tell."""
    if not _has_tables(using):
        return False
    return RestoreReport.objects.using(using).filter(id=report.id, committed=True).exists()


def add_to_catalogue(report: Report, *, kind: str, package_id: str, created: datetime, size: int, note: str) -> None:
    """Remember a package that has been published."""
    if _has_tables(report.database):
        # A path may have been that of another package, which somebody has removed.
        Backup.objects.using(report.database).update_or_create(
            name=report.package,
            defaults={
                "package_id": package_id,
                "kind": kind,
                "created": created,
                "size": size,
                "rows": sum(result.package for result in report.models),
                "files": report.files.package,
                "note": note,
                "pinned": kind == Backup.Kind.SAFETY,
            },
        )


def is_catalogued(name: str, using: str) -> bool:
    """Return whether the catalogue remembers a package."""
    return _has_tables(using) and Backup.objects.using(using).filter(name=name).exists()


def _running(using: str, purpose: str) -> QuerySet[RestoreReport]:
    """A drill runs beside the operations of the live system, and has a lock of its own."""
    left = RestoreReport.objects.using(using).filter(state=RestoreReport.State.RUNNING)
    return left.filter(operation="drill") if purpose == "drill" else left.exclude(operation="drill")


def _has_tables(using: str) -> bool:
    """Return whether the tables are there, and have what this code writes: migrations may wait to be applied."""
    meta = RestoreReport._meta
    if meta.db_table not in connections[using].introspection.table_names():
        return False
    return {field.column for field in meta.local_concrete_fields} <= databases.of(using).columns(meta.db_table)


def _account() -> str:
    try:
        return _fitting(pwd.getpwuid(os.getuid()).pw_name, 150)  # LOGNAME says what somebody likes
    except KeyError:  # a container's user without a name
        return str(os.getuid())


def _fitting(text: str, characters: int = CHARACTERS) -> str:
    """Make text of the world outside fit a column, whatever bytes it was."""
    return printable(text)[:characters]


def _finding(stored: RestoreReport, data: dict[str, Any]) -> ReportFinding:
    values = {
        name: _cut(printable(json.dumps(data[name], ensure_ascii=False))) if data[name] not in (None, []) else ""
        for name in ("identity", "expected", "found")
    }
    return ReportFinding(report=stored, **{**data, **values})


def _cut(text: str) -> str:
    return text if len(text) <= VALUE_CHARACTERS else f"{text[:VALUE_CHARACTERS]}… ({len(text)} characters)"
