"""Two sets of rows of one model compared by identity, in bounded memory."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from backups.records.jsontext import canonical, dumps
from backups.records.key_maps import HeldKeys, KeyMap
from backups.records.record import Key, Record, parse
from backups.records.scratch import Scratch, as_cell, from_cell
from backups.records.table import Table
from backups.records.twins import Twins, hash_of


@dataclass(frozen=True, slots=True)
class Pair:
    """A row of the package and what becomes of it. ``ordinal`` is its place in the package.

    ``nulled`` names the references that are to become null.
    """

    ordinal: int
    identity: Key
    pk: Any
    target_pk: Any
    action: str
    nulled: Sequence[str]


CREATED, CHANGED, UNCHANGED, SKIPPED = "created", "changed", "unchanged", "skipped"


class Comparison:
    """The rows of a package and of a database, one line each in ``Scratch``: identity, primary key, hash of content.

    Rows with one identity (a natural key that nothing keeps unique) are told apart by their numbers: see ``Twins``.
    """

    def __init__(self, scratch: Scratch, table: Table) -> None:
        self.table = table
        self._sql = scratch.connection
        self._package, self._target = scratch.new_name("package"), scratch.new_name("target")
        self._sql.execute(
            f"CREATE TABLE {self._package} (ordinal INTEGER PRIMARY KEY, identity BLOB, pk, hash BLOB,"
            " target_pk, action TEXT, nulled TEXT)"
        )
        self._sql.execute(f"CREATE TABLE {self._target} (ordinal INTEGER PRIMARY KEY, identity BLOB, pk, hash BLOB)")

    def fill(self, package: Side, target: Side) -> None:
        """Take both sides in and match them by identity."""
        for name, side in ((self._package, package), (self._target, target)):
            with self._transaction():
                self._sql.executemany(f"INSERT INTO {name} VALUES (?, ?, ?, ?{self._padding(name)})", self._lines(side))
            self._sql.execute(f"CREATE INDEX {name}_identity ON {name} (identity)")
        if self._has_twins(self._package) or self._has_twins(self._target):
            self._tell_apart(self._package, package.twins)
            self._tell_apart(self._target, target.twins)
        self._sql.execute(
            f"UPDATE {self._package} SET target_pk = t.pk,"
            f" action = CASE WHEN t.hash = {self._package}.hash THEN '{UNCHANGED}' ELSE '{CHANGED}' END"
            f" FROM {self._target} t WHERE t.identity = {self._package}.identity"
        )
        self._sql.execute(f"UPDATE {self._package} SET action = '{CREATED}' WHERE action IS NULL")

    def count(self, action: str) -> int:
        """Count the package's rows with this action."""
        return int(self._value(f"SELECT COUNT(*) FROM {self._package} WHERE action = ?", action))

    @property
    def extra(self) -> int:
        """The rows of the database that the package does not have."""
        return int(self._value(f"SELECT COUNT(*) FROM {self._target} t WHERE {self._is_extra}"))

    def extras(self) -> Iterator[tuple[Key, Any]]:
        """Yield identity and primary key of the rows that the package does not have."""
        rows = self._sql.execute(f"SELECT identity, pk FROM {self._target} t WHERE {self._is_extra} ORDER BY ordinal")
        for identity, pk in rows:
            yield _identity(identity), from_cell(pk)

    def pairs(self, *actions: str) -> Iterator[Pair]:
        """Yield the package's rows in their order, only those with one of ``actions`` where any is given."""
        where = f"WHERE action IN ({', '.join('?' * len(actions))})" if actions else ""
        rows = self._sql.execute(
            f"SELECT ordinal, identity, pk, target_pk, action, nulled FROM {self._package} {where} ORDER BY ordinal",
            actions,
        )
        for ordinal, identity, pk, target_pk, action, nulled in rows:
            yield Pair(
                ordinal, _identity(identity), from_cell(pk), from_cell(target_pk), action, (nulled or "").split()
            )

    def target_key(self, identity: list[Any]) -> Any:
        """Return the primary key of the database's row with this identity, or None."""
        row = self._sql.execute(f"SELECT pk FROM {self._target} WHERE identity = ?", (dumps(identity),)).fetchone()
        return from_cell(row[0]) if row else None

    def extra_with(self, pk: Any) -> Key | None:
        """Return the identity of the database's row with this primary key, where the package does not have it."""
        self._index_target_keys()
        row = self._sql.execute(
            f"SELECT identity FROM {self._target} t WHERE t.pk = ? AND {self._is_extra}", (as_cell(pk),)
        ).fetchone()
        return _identity(row[0]) if row else None

    def has_target_key(self, pk: Any) -> bool:
        """Return whether the database has a row with this primary key."""
        self._index_target_keys()
        return bool(self._value(f"SELECT COUNT(*) FROM {self._target} WHERE pk = ?", as_cell(pk)))

    # Keys of new rows

    def keep_free_keys(self, held: HeldKeys, *, extras_stay: bool) -> Iterator[Any]:
        """Let new rows keep their primary keys where no row that stays has or holds them; yield the taken ones."""
        self._index_target_keys()
        stays = "1" if extras_stay else f"NOT ({self._is_extra})"
        taken = (
            f"(EXISTS (SELECT 1 FROM {self._target} t WHERE t.pk = p.pk AND {stays})"
            f" OR {held.has(self.table.label, 'p.pk')})"
        )
        new = f"p.action = '{CREATED}'"
        self._sql.execute(f"UPDATE {self._package} AS p SET target_pk = pk WHERE {new} AND NOT {taken}")
        rows = self._sql.execute(
            f"SELECT pk FROM {self._package} p WHERE {new} AND {taken} ORDER BY ordinal"
        ).fetchall()
        return (from_cell(pk) for (pk,) in rows)

    def allocate(self, first: int, held: HeldKeys) -> int:
        """Give the new rows that could not keep their primary keys new ones from ``first`` on; return the next free."""
        numbered = (
            f"SELECT ordinal, ROW_NUMBER() OVER (ORDER BY ordinal) AS n FROM {self._package} WHERE target_pk IS NULL"
        )
        is_held = held.has(self.table.label, f"{self._package}.target_pk")
        while True:
            cursor = self._sql.execute(
                f"UPDATE {self._package} SET target_pk = ? + w.n - 1 FROM ({numbered}) w"
                f" WHERE w.ordinal = {self._package}.ordinal AND action = '{CREATED}'",
                (first,),
            )
            first += cursor.rowcount
            cursor = self._sql.execute(
                f"UPDATE {self._package} SET target_pk = NULL WHERE action = '{CREATED}' AND {is_held}"
            )
            if not cursor.rowcount:
                return first

    def derive_keys(self, derive: Callable[[Any], Any]) -> None:
        """Give new rows whose primary key is made of references the key that follows from them."""
        self._sql.create_function("derived", 1, lambda pk: as_cell(derive(from_cell(pk))))
        self._sql.execute(f"UPDATE {self._package} SET target_pk = derived(pk) WHERE action = '{CREATED}'")

    def will_be_used(self, pk: Any, *, extras_stay: bool) -> bool:
        """Return whether a row of the target will have this primary key."""
        self._index_target_keys()
        self._sql.execute(f"CREATE INDEX IF NOT EXISTS {self._package}_target ON {self._package} (target_pk)")
        cell = as_cell(pk)
        if self._value(f"SELECT COUNT(*) FROM {self._package} WHERE target_pk = ? AND action <> '{SKIPPED}'", cell):
            return True
        stays = "1" if extras_stay else f"NOT ({self._is_extra})"
        return bool(self._value(f"SELECT COUNT(*) FROM {self._target} t WHERE t.pk = ? AND {stays}", cell))

    def skip(self, ordinal: int) -> None:
        self._sql.execute(f"UPDATE {self._package} SET action = '{SKIPPED}' WHERE ordinal = ?", (ordinal,))

    def set_null(self, ordinal: int, field: str) -> None:
        """Note that a reference of a row is to become null, which makes it differ from the package."""
        self._sql.execute(
            f"UPDATE {self._package} SET nulled = COALESCE(nulled || ' ', '') || ? WHERE ordinal = ?", (field, ordinal)
        )

    def largest_key(self) -> int:
        """Return the largest primary key on either side, 0 where there is none. For integer keys."""
        largest = f"SELECT MAX(pk) AS pk FROM {self._package} UNION ALL SELECT MAX(pk) FROM {self._target}"
        return self._value(f"SELECT MAX(pk) FROM ({largest})") or 0

    def key_map(self) -> KeyMap:
        """Return the primary keys that change, once every row has its target key."""
        changed = "target_pk IS NOT NULL AND target_pk IS NOT pk"
        self._sql.execute(f"CREATE INDEX IF NOT EXISTS {self._package}_pk ON {self._package} (pk) WHERE {changed}")
        return KeyMap(self._sql, self._package, changed)

    def drop(self) -> None:
        """Forget both sides."""
        for name in (self._package, self._target):
            self._sql.execute(f"DROP TABLE {name}")

    @property
    def _is_extra(self) -> str:
        same = f"SELECT 1 FROM {self._package} x WHERE x.identity = t.identity"
        return f"NOT EXISTS ({same} AND x.action IS NOT '{SKIPPED}')"

    def _index_target_keys(self) -> None:
        self._sql.execute(f"CREATE INDEX IF NOT EXISTS {self._target}_pk ON {self._target} (pk)")

    def _lines(self, side: Side) -> Iterator[tuple[int, bytes, Any, bytes]]:
        table = self.table
        for ordinal, record in enumerate(side.records):
            content = side.twins.content(table, record) if side.twins else table.content(record)
            yield ordinal, dumps(table.identity_of(record)), as_cell(record.pk), hash_of(content)

    def _has_twins(self, name: str) -> bool:
        rows = self._sql.execute(f"SELECT 1 FROM {name} GROUP BY identity HAVING COUNT(*) > 1 LIMIT 1")
        return rows.fetchone() is not None

    def _tell_apart(self, name: str, twins: Twins | None) -> None:
        numbers = twins.numbers(self.table) if twins else {}
        self._sql.create_function("number", 1, numbers.get)
        self._sql.execute(
            f"UPDATE {name} SET identity = CAST(identity || '#' || number(pk) AS BLOB) WHERE number(pk) IS NOT NULL"
        )

    def _padding(self, name: str) -> str:
        return ", NULL, NULL, NULL" if name == self._package else ""

    def _transaction(self) -> sqlite3.Connection:
        self._sql.execute("BEGIN")
        return self._sql

    def _value(self, sql: str, *parameters: Any) -> Any:
        return self._sql.execute(sql, parameters).fetchone()[0]


@dataclass(frozen=True)
class Side:
    """One of the two sets of rows: the records, and what tells apart those that share an identity."""

    records: Iterable[Record]
    twins: Twins | None = None


def _identity(cell: bytes) -> Key:
    """Read an identity back, less the mark that tells equal ones apart."""
    return list(json.loads(cell[: cell.rindex(b"]") + 1]))


def differing_fields(expected: Record, found: Record, table: Table) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, expected and found value of what two rows of one identity do not have in common.

    Where nothing shows, the rows refer to different ones that share an identity: their keys are told.
    """
    expected, found = (_as_read(record, table) for record in (expected, found))
    if table.key_is_content and expected.pk != found.pk:
        yield table.key_name, expected.pk, found.pk
    names = sorted(expected.fields.keys() | found.fields.keys())
    differing = [name for name in names if _side(expected, name, table) != _side(found, name, table)]
    for name in differing:
        was, is_now = (record.keys.get(name, record.fields.get(name)) for record in (expected, found))
        if was == is_now:
            was, is_now = (record.fields.get(name) for record in (expected, found))
        yield name, was, is_now
    if not differing:
        for name in expected.refs:
            if expected.refs[name] != found.refs.get(name):
                yield name, [*expected.fields[name], expected.refs[name]], [*found.fields[name], found.refs.get(name)]


def _as_read(record: Record, table: Table) -> Record:
    return parse(record.line(table.label), table.label)


def _side(record: Record, name: str, table: Table) -> bytes:
    """All that one field says: present or not, its value or identity, and which null."""
    value = record.keys[name] if name in record.keys else record.fields.get(name)
    value = canonical(value) if name in table.json_fields else value
    zeros = table.zeros(record, name)
    return dumps([name in record.fields, name in record.keys, value, zeros, name in record.json_null], sort_keys=True)
