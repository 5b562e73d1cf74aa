"""What a restore will do with the rows of one table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from backups.records.comparison import CHANGED, CREATED, Comparison
from backups.records.key_maps import KeyMap
from backups.records.record import Record
from backups.records.table import Table


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """A record as it is to be in the target: ``pk`` is its primary key there."""

    record: Record
    pk: Any
    action: str


class TablePlan:
    """What becomes of the rows of one table. Without a ``comparison``, every row is new and keeps its key."""

    def __init__(self, table: Table, rows: int, before: int, next_key: int) -> None:
        self.table = table
        self.package_rows = rows
        self.next_key = next_key
        self.before = before
        self.comparison: Comparison | None = None
        self.keys: KeyMap | None = None
        self.extras_stay = True

    def count(self, action: str) -> int:
        if self.comparison is None:
            return self.package_rows if action == CREATED else 0
        return self.comparison.count(action)

    @property
    def deleted(self) -> int:
        return 0 if self.extras_stay or self.comparison is None else self.comparison.extra

    def extra_keys(self) -> Iterator[Any]:
        """Yield the primary keys of the rows to be deleted because the package does not have them."""
        if self.deleted and self.comparison is not None:
            yield from (pk for _, pk in self.comparison.extras())

    @property
    def is_verbatim(self) -> bool:
        """Whether every row of the package goes into an empty table as it is."""
        return self.comparison is None

    @property
    def changes_anything(self) -> bool:
        return bool(self.count(CREATED) or self.count(CHANGED) or self.deleted)
