"""Primary keys that change, and those that no other row may get."""

from __future__ import annotations

import sqlite3
from typing import Any

from backups.records.scratch import Scratch, as_cell, from_cell


class KeyMap:
    """Primary keys of the package that are others in the target. Only those that change are in it."""

    LIMIT = 200_000
    """Up to so many are held in memory, some 20 MB; beyond, each is looked up."""

    def __init__(self, sql: sqlite3.Connection, name: str, condition: str) -> None:
        self._sql = sql
        self._statement = f"SELECT target_pk FROM {name} WHERE pk = ? AND {condition}"
        self._known: dict[Any, Any] = {}
        self.size: int = sql.execute(f"SELECT COUNT(*) FROM {name} WHERE {condition}").fetchone()[0]
        if self.size <= self.LIMIT:
            self._known = dict(sql.execute(f"SELECT pk, target_pk FROM {name} WHERE {condition}"))

    @property
    def numbers(self) -> dict[Any, Any] | None:
        """The keys that change, where all are in memory and integers."""
        is_plain = self.size <= self.LIMIT and all(type(key) is int for key in self._known.values())
        return self._known if is_plain else None

    def get(self, pk: Any) -> Any:
        """Return the target's primary key of the row that the package knows by ``pk``."""
        if not self.size:
            return pk
        cell = as_cell(pk)
        if self.size <= self.LIMIT:
            return from_cell(self._known[cell]) if cell in self._known else pk
        row = self._sql.execute(self._statement, (cell,)).fetchone()
        return from_cell(row[0]) if row else pk


class HeldKeys:
    """Primary keys, by model, that rows that stay hold of rows that go or are gone: no other row may get them."""

    def __init__(self, scratch: Scratch) -> None:
        self._sql = scratch.connection
        self.name = scratch.new_name("held")
        self._sql.execute(f"CREATE TABLE {self.name} (label TEXT, pk, PRIMARY KEY (label, pk)) WITHOUT ROWID")

    def add(self, label: str, pk: Any) -> None:
        self._sql.execute(f"INSERT OR IGNORE INTO {self.name} VALUES (?, ?)", (label, as_cell(pk)))

    def has_any(self, label: str) -> bool:
        """Return whether a key of a model is held."""
        rows = self._sql.execute(f"SELECT 1 FROM {self.name} WHERE label = ? LIMIT 1", (label,))
        return rows.fetchone() is not None

    def has(self, label: str, pk: str) -> str:
        """Write the condition that a key of a model, in the column ``pk``, is held."""
        return f"EXISTS (SELECT 1 FROM {self.name} h WHERE h.label = '{label}' AND h.pk = {pk})"
