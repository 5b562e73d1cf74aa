"""What every operation shares: the lock, the stored report, the clock and the target's readiness."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connections
from django.db.migrations.executor import MigrationExecutor

from backups import databases, reports
from backups.errors import OperationRunning, TargetNotReady
from backups.reporting import Report, Step, Verdict


@contextmanager
def operation(report: Report) -> Iterator[None]:
    """Run one operation at a time on a database, and keep its report whatever its end is.

    Raises ``OperationRunning`` where another process holds the lock.
    """
    using = report.database
    with databases.of(using).lock() as held:
        if not held:
            running = reports.running(using)
            what = f": {running}" if running else ""
            raise OperationRunning(f"another operation is running on database {using!r}{what}")
        reports.mark_interrupted(using)  # whoever was running and does not hold the lock is dead
        reports.start(report, using)
        begun = time.monotonic()
        try:
            yield
        except BaseException as error:
            report.verdict = Verdict.FAILED
            report.error = str(error) or type(error).__name__
            raise
        finally:
            report.seconds = time.monotonic() - begun
            reports.finish(report, using)


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
