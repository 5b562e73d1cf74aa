"""What stands in the way of a restore, as its plan says it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from backups.records.record import Key, Record
from backups.records.table import Table
from backups.records.targets import Target
from backups.reporting import Finding, Severity


class OnMissing(StrEnum):
    """What becomes of a reference to something that is neither in the package nor in the target."""

    FAIL = "fail"
    NULL = "null"
    SKIP = "skip"


def still_referred_to(table: Table, record: Record, target: Target, gone: Key) -> Finding:
    return Finding(
        severity=Severity.ERROR,
        code="row_referred_to",
        model=table.label,
        identity=table.identity_of(record),
        field=target.field,
        expected=gone,
        message=f"the row stays, and refers to a row of {target.label} that the package does not have",
    )


def reference_missing(table: Table, record: Record, target: Target, policy: OnMissing) -> Finding:
    done = {
        OnMissing.FAIL: "",
        OnMissing.NULL: ", left leading nowhere" if target.generic and not target.dangled else ", set to null",
        OnMissing.SKIP: ", row skipped",
    }
    what = (
        f"led nowhere when the package was made, and would lead to another row of {target.label} now"
        if target.dangled
        else f"refers to a row of {target.label} that is neither in the package nor in the database"
    )
    return Finding(
        severity=Severity.ERROR if policy is OnMissing.FAIL else Severity.WARNING,
        code="reference_dangling" if target.dangled else "reference_missing",
        model=table.label,
        identity=table.identity_of(record),
        field=target.field,
        expected=target.key or target.value,
        message=f"{what}{done[policy]}",
    )


def key_taken(table: Table, pk: Any) -> Finding:
    return Finding(
        severity=Severity.ERROR,
        code="primary_key_taken",
        model=table.label,
        field=table.key_name,
        expected=pk,
        message="the primary key belongs to another row, and is not one that could be another",
    )


def key_differs(table: Table, expected: Any, found: Any) -> Finding:
    return Finding(
        severity=Severity.ERROR,
        code="primary_key_differs",
        model=table.label,
        field=table.key_name,
        expected=expected,
        found=found,
        message="the row has another primary key in the database, and it is not one that could be another",
    )
