"""What every operation shares: the lock, the stored report, the clock and the target's readiness."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from django.db import DatabaseError, connections
from django.db.migrations.executor import MigrationExecutor
from django.dispatch import Signal

from backups import databases, reports
from backups.errors import BackupError, OperationRunning, PackageDamaged, PackageLocked, TargetNotReady
from backups.files import FileChanges, storages_of
from backups.models import RestoreReport
from backups.records import coverage
from backups.reporting import Finding, Report, Severity, Step, Verdict
from backups.services.catalogue import package_path
from backups.services.keys import Keys
from backups.services.redaction import message_of, redact
from backups.services.safety import settle, unsettled
from backups.signals import operation_failed

TELLING = "telling who wants to know"
"""What may be interrupted when everything else is done."""


@contextmanager
def operation(report: Report, purpose: str = "operation") -> Iterator[None]:
    """Run one operation of a purpose at a time on a database, and keep its report whatever its end is.

    Raises ``OperationRunning`` where another process holds the lock, and ``TargetNotReady`` within a transaction.
    """
    using = report.database
    _require_no_transaction(using)
    with databases.of(using).lock(purpose) as held:
        if not held:
            running = reports.running(using, purpose)
            what = f": {running}" if running else ""
            raise OperationRunning(f"another {purpose} is running on database {using!r}{what}")
        recover(using, purpose)
        is_kept = reports.start(report, using)
        begun = time.monotonic()
        try:
            with _tuned_interpreter(), _no_deeper_than_python():
                yield
        except BaseException as error:
            is_done = report.verdict is Verdict.PROVED and reports.is_committed(report, using)
            if is_done:
                warn_of_unfinished(report, "the end of the operation", error)
            else:
                report.verdict = Verdict.FAILED
                report.error = message_of(error)
                if isinstance(error, BackupError):
                    error.report = report
                announce(operation_failed, report)
            if not is_done or not isinstance(error, Exception | KeyboardInterrupt):
                raise
        finally:
            report.seconds = time.monotonic() - begun
            redact(report)
            is_kept = reports.finish(report, using) or not is_kept
        if not is_kept:
            of = f" of {report.package}" if report.package else ""
            gone = BackupError(
                f"the {report.operation}{of} is done, and its verdict is {report.verdict}; but the database has gone,"
                " and the report of it could not be kept",
                hint="the next operation will call this one interrupted, and say what was committed",
            )
            gone.report = report
            raise gone


def _require_no_transaction(using: str) -> None:
    """Refuse to run within a transaction: it could take rows back and leave the files, and its snapshot is its own."""
    if connections[using].connection is not None and not connections[using].get_autocommit():
        raise TargetNotReady(
            f"a transaction is open on database {using!r}",
            hint="end it first; in Python, call this outside of transaction.atomic() and of ATOMIC_REQUESTS",
        )


@contextmanager
def _no_deeper_than_python() -> Iterator[None]:
    """Refuse JSON of hundreds of levels, wherever Python gives up on it."""
    try:
        yield
    except RecursionError:
        raise PackageDamaged("a value is nested too deep for Python", hint="see the JSON fields") from None


@contextmanager
def opened(report: Report, keys: Keys) -> Iterator[tuple[Path, str]]:
    """Give path and name of the package that a report names; one that cannot be opened is a failed operation.

    Not under the lock: somebody may have to be asked for a passphrase.
    """
    with ExitStack() as stack:
        try:
            found = stack.enter_context(package_path(report.package, keys))
        except (PackageDamaged, PackageLocked) as error:
            report.error, error.report = message_of(error), report
            with suppress(DatabaseError):  # where reports cannot be kept, the message is all there is
                reports.start(report, report.database)
                announce(operation_failed, report)
                reports.finish(report, report.database)
            raise
        yield found


@contextmanager
def _tuned_interpreter() -> Iterator[None]:
    """Let Python look for cycles less often: rows make none, and looking takes a quarter of an operation's time.

    And let a thread that has waited for the database have the interpreter back soon (it is 5 ms otherwise): a backup
    is a fifth faster for it on SQLite.
    """
    thresholds, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.set_threshold(100_000, 50, 100)
    sys.setswitchinterval(0.0005)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        sys.setswitchinterval(interval)


def recover(using: str, purpose: str) -> None:
    """Bring to an end what operations that died have left: whoever was running and does not hold the lock is dead.

    And what one has left that had done its work, but was interrupted when it cleaned up.
    """

    def settled(one: RestoreReport) -> list[str]:
        changes = FileChanges(one.id.hex, storages_of(coverage.of_database(using).models))
        return settle(one.id.hex, changes, using, committed=one.committed)

    for done in reports.finished(using, unsettled()):
        settled(done)
    for dead in reports.interrupted(using, purpose):
        left = settled(dead)
        if dead.committed:
            outcome = "the process died after the commit: rows and files are as it was asked for"
        else:
            outcome = "the process died before the commit: rows and files are as they were"
        reports.mark_interrupted(dead, "\n".join([outcome, *(f"could not be removed: {path}" for path in left)]), using)


def warn_of_leftovers(report: Report, left: list[str]) -> None:
    """Name the temporary files that an operation could not remove; they may hold what was deleted."""
    report.findings += [
        Finding(
            severity=Severity.WARNING,
            code="temporary_left",
            identity=[path],
            message="a temporary file could not be removed; it holds what a file was before, and can be deleted",
        )
        for path in left
    ]


@contextmanager
def finishing(report: Report, what: str) -> Iterator[None]:
    """Do what is left to do after the work is done: nothing that happens there, even Ctrl-C, makes that undone."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if report.verdict is not Verdict.PROVED:
            raise
        warn_of_unfinished(report, what, error)


def warn_of_unfinished(report: Report, what: str, error: BaseException) -> None:
    """Say what has failed, or was interrupted, after the work was done."""
    happened = "was interrupted" if isinstance(error, KeyboardInterrupt) else f"failed: {message_of(error)}"
    report.findings.append(
        Finding(
            severity=Severity.WARNING,
            code="unfinished",
            message=f"the {report.operation} is done and proved; after that, {what} {happened}",
        )
    )


def announce(signal: Signal, report: Report) -> None:
    """Send a signal. What a receiver does wrong is a finding: the operation is done, whatever they make of it."""
    for receiver, error in signal.send_robust(Report, report=report, using=report.database):
        if isinstance(error, Exception):
            name = getattr(receiver, "__qualname__", repr(receiver))
            report.findings.append(
                Finding(
                    severity=Severity.WARNING,
                    code="receiver_failed",
                    message=f"{name}, which is told when this is done, failed: {message_of(error)}",
                )
            )


@contextmanager
def step(report: Report, name: str) -> Iterator[None]:
    """Time one part of an operation."""
    begun = time.monotonic()
    try:
        yield
    finally:
        report.steps.append(Step(name=name, seconds=time.monotonic() - begun))


def require_migrated(using: str) -> None:
    """Raise ``TargetNotReady`` where migrations wait to be applied."""
    executor = MigrationExecutor(connections[using])
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if plan:
        waiting = ", ".join(f"{migration.app_label}.{migration.name}" for migration, _ in plan[:5])
        more = f" and {len(plan) - 5} more" if len(plan) > 5 else ""
        raise TargetNotReady(
            f"database {using!r} has pending migrations: {waiting}{more}",
            hint=f"run manage.py migrate --database {using}",
        )
