"""The objects of one model of a fixture, kept where they can be found by primary key, by value and by place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from backups.records.foreign_values import Normaliser, Precision, normaliser
from backups.records.jsontext import dumps, loads
from backups.records.record import Key
from backups.records.scratch import Scratch
from backups.records.table import Table

CACHED_ROWS = 20_000
"""Rows that others refer to are held in memory up to this number."""

BY_KEY, BY_NATURAL_KEY, BY_PLACE = "pk", "key", "row"

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

Pointer = list[Any]
"""How a fixture names a row: ["pk", value of the column], ["key", natural key], or ["row", place in the file]."""


@dataclass(slots=True)
class Row:
    """One object of the fixture. References among ``fields`` are pointers or None."""

    store: ObjectRows
    ordinal: int
    pk: Any
    has_own_key: bool
    fields: dict[str, Any]
    json_null: list[str]
    place: str


class Unresolved(Exception):
    """An identity that leads over a row which is not in the file."""


class ObjectRows:
    """The objects of one model."""

    def __init__(self, scratch: Scratch, table: Table) -> None:
        self.table = table
        self.sql = scratch.connection
        self.name = scratch.new_name("fixture")
        self.sql.execute(
            f"CREATE TABLE {self.name} (ordinal INTEGER PRIMARY KEY, pk, own INTEGER, fields BLOB, json_null BLOB,"
            " place TEXT, skipped INTEGER DEFAULT 0)"
        )
        self.by_name = {reference.name: reference for reference in table.references}
        self.normalise: dict[str, Normaliser] = {one.name: normaliser(one) for one in table.columns}
        self.normalise_key = normaliser(table.key_fields[0]) if len(table.key_fields) == 1 else None
        self.natural_keys: dict[str, Callable[[Any, bool], Key]] = {}
        self.many_to_many = {one.name: one for one in table.model._meta.local_many_to_many}
        self.precision = {one.name: Precision() for one in table.columns if Precision.concerns(one)}
        self.count = 0
        self._indexes: dict[str, str] = {}
        self._cache: dict[int, Row] = {}

    def add(self, pk: Any, own: bool, fields: dict[str, Any], json_null: list[str], place: str) -> int:
        self.count += 1
        values = (self.count, _cell(pk), own, dumps(fields), dumps(json_null), place)
        self.sql.execute(f"INSERT INTO {self.name} VALUES (?, ?, ?, ?, ?, ?, 0)", values)
        return self.count

    def rows(self, where: str = "skipped = 0", order: str = "pk") -> Iterator[Row]:
        for line in self.sql.execute(
            f"SELECT ordinal, pk, own, fields, json_null, place FROM {self.name} WHERE {where} ORDER BY {order}"
        ):
            yield self._row(line)

    def at(self, ordinal: int) -> Row | None:
        if ordinal not in self._cache:
            line = self.sql.execute(
                f"SELECT ordinal, pk, own, fields, json_null, place FROM {self.name} WHERE ordinal = ? AND skipped = 0",
                (ordinal,),
            ).fetchone()
            if line is None:
                return None
            if len(self._cache) >= CACHED_ROWS:
                self._cache.clear()
            self._cache[ordinal] = self._row(line)
        return self._cache[ordinal]

    def with_key(self, pk: Any) -> Row | None:
        """Return the row that has this primary key in the file; keys that were made up since do not count."""
        if "pk" not in self._indexes:
            self.sql.execute(f"CREATE INDEX {self.name}_pk ON {self.name} (pk)")
            self._indexes["pk"] = ""
        found = self.sql.execute(f"SELECT ordinal FROM {self.name} WHERE pk = ? AND own", (_cell(pk),)).fetchone()
        return self.at(found[0]) if found else None

    def with_value(self, kind: str, value: Any, value_of: Callable[[Row], Any]) -> list[Row]:
        """Return the rows, two at most, that have this value; ``value_of`` says which each has, once."""
        if kind not in self._indexes:
            name = self._indexes[kind] = f"{self.name}_{len(self._indexes)}"
            self.sql.execute(f"CREATE TABLE {name} (value BLOB, ordinal INTEGER)")
            for row in self.rows(order="ordinal"):
                try:
                    held = value_of(row)
                except Unresolved:
                    continue
                self.sql.execute(f"INSERT INTO {name} VALUES (?, ?)", (dumps(held), row.ordinal))
            self.sql.execute(f"CREATE INDEX {name}_value ON {name} (value)")
        name = self._indexes[kind]
        same = self.sql.execute(f"SELECT ordinal FROM {name} WHERE value = ? LIMIT 2", (dumps(value),)).fetchall()
        return [found for (ordinal,) in same if (found := self.at(ordinal))]

    def set_key(self, ordinal: int, pk: Any, *, own: bool) -> None:
        self.sql.execute(f"UPDATE {self.name} SET pk = ?, own = ? WHERE ordinal = ?", (_cell(pk), own, ordinal))
        self._cache.pop(ordinal, None)

    def make_up_keys(self, first: int) -> None:
        """Number the rows that have no primary key, in the order of the file."""
        numbered = f"SELECT ordinal AS o, ROW_NUMBER() OVER (ORDER BY ordinal) AS n FROM {self.name} WHERE pk IS NULL"
        self.sql.execute(f"UPDATE {self.name} SET pk = ? + n - 1 FROM ({numbered}) WHERE ordinal = o", (first,))
        self._cache.clear()

    def skip_without_key(self) -> None:
        self.sql.execute(f"UPDATE {self.name} SET skipped = 1 WHERE pk IS NULL")
        self._cache.clear()

    @property
    def without_key(self) -> int:
        return int(self.sql.execute(f"SELECT COUNT(*) FROM {self.name} WHERE pk IS NULL").fetchone()[0])

    @property
    def largest_key(self) -> int:
        return int(self.sql.execute(f"SELECT COALESCE(MAX(pk), 0) FROM {self.name}").fetchone()[0])

    def skip(self, ordinal: int) -> None:
        self.sql.execute(f"UPDATE {self.name} SET skipped = 1 WHERE ordinal = ?", (ordinal,))
        self._cache.pop(ordinal, None)

    @property
    def kept(self) -> int:
        return int(self.sql.execute(f"SELECT COUNT(*) FROM {self.name} WHERE skipped = 0").fetchone()[0])

    @cached_property
    def has_made_up_keys(self) -> bool:
        return self.sql.execute(f"SELECT 1 FROM {self.name} WHERE NOT own LIMIT 1").fetchone() is not None

    def _row(self, line: tuple[Any, ...]) -> Row:
        ordinal, pk, own, fields, json_null, place = line
        return Row(self, ordinal, _from_cell(pk), bool(own), loads(fields), loads(json_null), place)


def _cell(pk: Any) -> Any:
    """A primary key as SQLite holds it; what it has no type for, as JSON bytes."""
    if isinstance(pk, int):
        return pk if abs(pk) < 2**63 else dumps(pk)
    if isinstance(pk, str):
        return dumps(pk) if _LONE_SURROGATE.search(pk) else pk
    return pk if pk is None or isinstance(pk, float) else dumps(pk)


def _from_cell(cell: Any) -> Any:
    return loads(cell) if isinstance(cell, bytes) else cell
