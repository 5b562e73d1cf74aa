"""Rows that share an identity which nothing keeps unique."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable
from typing import Any

from django.db.models import Model

from backups.records.jsontext import dumps
from backups.records.record import Record
from backups.records.scratch import Scratch, as_cell
from backups.records.table import Table


class Twins:
    """Tells apart, on one side, the rows of an identity that nothing keeps unique: the later ones have a number.

    A row of the database has the number of the row of ``package`` that it is: the one of the same content, failing
    that of the same primary key, failing that the only one where it is the only one as well. Any other row of the
    identity is one that the package does not have, so that nothing overwrites it.
    """

    def __init__(
        self, scratch: Scratch, read: Callable[[Table], Iterable[Record]], package: Twins | None = None
    ) -> None:
        self._scratch = scratch
        self._read = read
        self._package = package
        self._rows: dict[type[Model], str] = {}
        self._numbers: dict[type[Model], dict[Any, int]] = {}
        self._are_possible: dict[type[Model], bool] = {}

    def content(self, table: Table, record: Record) -> bytes:
        """Write what a row says, with the number of each twin that it refers to."""
        return table.content(record, self._referred(table, record) if table.may_refer_to_twins else {})

    def numbers(self, table: Table) -> dict[Any, int]:
        """Return the numbers above 1, by primary key as ``Scratch`` holds it."""
        if table.model not in self._numbers:
            rows = self.rows(table)
            numbered = self._scratch.connection.execute(f"SELECT pk, number FROM {rows} WHERE number > 1")
            self._numbers[table.model] = dict(numbered)
        return self._numbers[table.model]

    def rows(self, table: Table) -> str:
        """Return the name of a table in ``Scratch`` with the numbered rows of a table."""
        if table.model not in self._rows:
            sql, name = self._scratch.connection, self._scratch.new_name("twins")
            sql.execute(f"CREATE TABLE {name} (pk, identity BLOB, hash BLOB, number INTEGER)")
            lines = (
                (as_cell(record.pk), dumps(table.identity_of(record)), hash_of(table.content(record)))
                for record in self._read(table)
            )
            sql.executemany(f"INSERT INTO {name} (pk, identity, hash) VALUES (?, ?, ?)", lines)
            sql.execute(f"CREATE INDEX {name}_identity ON {name} (identity, number)")
            if self._package is not None:
                _pair(sql, self._package.rows(table), name)
            _number(sql, name, self._package.rows(table) if self._package else None)
            self._rows[table.model] = name
        return self._rows[table.model]

    def _referred(self, table: Table, record: Record) -> dict[str, int]:
        numbers = {}
        for name, model, pk in table.referred(record):
            if self._may_be(model) and (number := self.numbers(Table(model)).get(as_cell(pk))):
                numbers[name] = number
        return numbers

    def _may_be(self, model: type[Model]) -> bool:
        if model not in self._are_possible:
            self._are_possible[model] = Table(model).may_have_twins
        return self._are_possible[model]


def _pair(sql: sqlite3.Connection, package: str, target: str) -> None:
    """Give rows of a database the numbers of the rows of a package that they are, the surest first."""
    used = f"SELECT 1 FROM {target} t WHERE t.identity = p.identity AND t.number = p.number"
    for same in ("identity, hash, pk", "identity, hash", "identity, pk"):
        window = f"ROW_NUMBER() OVER (PARTITION BY {same} ORDER BY pk) AS place"
        sql.execute(
            f"UPDATE {target} SET number = pair.number FROM ("
            f" SELECT theirs.number, ours.line FROM"
            f" (SELECT number, {same}, {window} FROM {package} p WHERE NOT EXISTS ({used})) theirs"
            f" JOIN (SELECT rowid AS line, {same}, {window} FROM {target} WHERE number IS NULL) ours"
            f" USING ({same}, place)) pair WHERE pair.line = {target}.rowid"
        )
    single = f"identity = {target}.identity GROUP BY identity HAVING COUNT(*) = 1"
    sql.execute(
        f"UPDATE {target} SET number = 1 WHERE number IS NULL AND EXISTS (SELECT 1 FROM {package} p WHERE p.{single})"
        f" AND EXISTS (SELECT 1 FROM {target} t WHERE t.{single})"
    )


def _number(sql: sqlite3.Connection, name: str, package: str | None) -> None:
    """Number the rows of each identity that have no number yet, in their order, after those of the package."""
    first = f"(SELECT COUNT(*) FROM {package} p WHERE p.identity = {name}.identity)" if package else "0"
    place = f"SELECT rowid AS line, ROW_NUMBER() OVER (PARTITION BY identity ORDER BY pk) AS n FROM {name}"
    sql.execute(
        f"UPDATE {name} SET number = {first} + w.n FROM ({place} WHERE number IS NULL) w WHERE w.line = {name}.rowid"
    )


def hash_of(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
