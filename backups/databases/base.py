"""What every engine does, in the SQL that all of them know. An engine's module overrides what it does better."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol, TypeVar

from django.core.management.color import no_style
from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.introspection import TableInfo
from django.db.models import Model

from backups.databases.cells import CellPage, Cells, Kind

Row = Sequence[Any]
_Item = TypeVar("_Item")

PAGE_ROWS = 500
"""Rows in a page, at most or about."""
PAGE_BYTES = 200_000
"""A page, as far as an engine knows: neither passing pages on nor holding them costs much, in time or memory."""

FIRST_ROWS = 10
"""Rows of which nobody knows yet how large they are."""
MOST_BYTES = 4 * 1024 * 1024
"""What is held of a table at a time, or a single row."""

DEADLOCKS = 10
"""Attempts to lock tables that others write to; each costs one of those others at most its transaction."""


class Selection(Protocol):
    """A SELECT whose statement the engine completes: see ``backups.records.selection``."""

    model: type[Model]
    key: list[int]

    def sql(self, where: str = "", *, ordered: bool = True, limit: int | None = None, date: str = "{}") -> str: ...

    def sql_of(self, index: int) -> str: ...

    def key_sql(self) -> list[str]: ...

    def convert(self, rows: Sequence[Row]) -> Sequence[Row]: ...

    def name_of(self, row: Row) -> str: ...


class Database:
    """One connection's engine."""

    PARAMETERS = 900
    """Parameters in one statement, below the smallest limit among engines (999, older SQLite)."""
    DATE = "{}"
    """How a column of dates or times is read."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection: Any = connection  # the stubs know only what all backends have

    @property
    def name(self) -> str:
        """The database as its administrator names it."""
        return str(self.connection.settings_dict["NAME"])

    @property
    def key(self) -> str:
        """A short name for this database, other than that of any other here or on another server."""
        settings = self.connection.settings_dict
        whole = f"{settings['HOST']}:{settings['PORT']}/{self.name}"
        return f"{zlib.crc32(whole.encode()):08x}"

    @property
    def engine(self) -> dict[str, str]:
        """Vendor and version, for the manifest."""
        version = ".".join(str(part) for part in self.connection.get_database_version())
        return {"vendor": self.connection.display_name.lower(), "version": version}

    def require_transactional(self, tables: Sequence[str]) -> None:
        """Raise ``TargetNotReady`` where a table takes no part in snapshots and rollbacks."""

    # Reading

    def table_of(self, name: str, listed: Mapping[str, str]) -> TableInfo:
        """Return the table or view that a model means by a name, of those ``listed`` by name with their types, or not.

        The name may be written in another case, or lead out of the schema. Raises ``DatabaseError`` where there is
        nothing to read by it.
        """
        if name not in listed:
            with self.savepoint() if self.connection.in_atomic_block else nullcontext():
                self._value(f"SELECT 1 FROM {self._quote(name)} WHERE 1 = 0")
            name = next((one for one in listed if one.casefold() == name.casefold()), name)
        return TableInfo(name, listed.get(name, "t"))

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let every read inside see the same moment. Inside a transaction, that one's isolation has to do."""
        if self.connection.in_atomic_block:
            yield
            return
        self._before_snapshot()
        with transaction.atomic(using=self.connection.alias):
            self._begin_snapshot()
            yield

    def _before_snapshot(self) -> None:
        """Prepare the next transaction."""

    def _begin_snapshot(self) -> None:
        """Run the first statement of the transaction."""

    def stream(self, selection: Selection, most: int) -> Iterator[Sequence[Row]]:
        """Read all rows in the order of the primary key, at ``most`` so many at a time.

        By asking for what follows the last: no cursor is open between the pages, so that other statements may run.
        """
        size = PageSize(most)
        page = self._read(selection, limit=size.rows)
        while page:
            yield selection.convert(page)
            if len(page) < size.rows:
                return
            size.learn(len(page), weight(page))
            last = [page[-1][index] for index in selection.key]
            page = self._read(selection, _after(selection.key_sql()), _after_values(last), limit=size.rows)

    @property
    def kinds(self) -> frozenset[Kind]:
        """What ``cells`` can write. An engine that can write nothing is asked for rows instead."""
        return frozenset()

    def cells(self, query: Cells, after: int | None) -> Generator[CellPage]:
        """Let the database write the cells of a table, of the rows whose key follows ``after``."""
        raise NotImplementedError

    def rows_after(self, selection: Selection, after: int | None, size: int) -> Sequence[Row]:
        """Read the next rows of a table with an integer key, in its order."""
        if after is None:
            return selection.convert(self._read(selection, limit=size))
        return selection.convert(self._read(selection, _after(selection.key_sql()), (after,), limit=size))

    def rows_with(self, selection: Selection, keys: Iterable[Row], size: int) -> Iterator[Sequence[Row]]:
        """Read the rows that have these primary keys (one value for each key column), in no order."""
        columns = selection.key_sql()
        for batch in batched(keys, min(size, self.PARAMETERS) // len(columns)):
            if len(columns) == 1:
                where = f"{columns[0]} IN ({', '.join(['%s'] * len(batch))})"
            else:
                one = " AND ".join(f"{column} = %s" for column in columns)
                where = " OR ".join([f"({one})"] * len(batch))
            parameters = [value for key in batch for value in key]
            yield self.select(selection, where, parameters)

    def select(self, selection: Selection, where: str, parameters: Sequence[Any]) -> Sequence[Row]:
        """Read the few rows that a condition holds for."""
        return selection.convert(self._read(selection, where, parameters, ordered=False))

    def _read(
        self,
        selection: Selection,
        where: str = "",
        parameters: Sequence[Any] = (),
        *,
        ordered: bool = True,
        limit: int | None = None,
    ) -> Sequence[Row]:
        return self._fetch(selection.sql(where, ordered=ordered, limit=limit, date=self.DATE), parameters)

    def _fetch(self, sql: str, parameters: Sequence[Any]) -> Sequence[Row]:
        with self.connection.cursor() as cursor:
            cursor.execute(sql, parameters or None)
            rows: Sequence[Row] = cursor.fetchall()
        return rows

    def columns(self, table: str) -> set[str]:
        """Name the columns of a table. Django's introspection would parse or look up all that is known of each."""
        with self.connection.cursor() as cursor:
            cursor.execute(f"SELECT * FROM {self._quote(table)} WHERE 1 = 0")
            return {column[0] for column in cursor.description}

    def count(self, table: str) -> int:
        """Count the rows of a table."""
        return int(self._value(f"SELECT COUNT(*) FROM {self._quote(table)}"))

    def has_more(self, table: str, rows: int) -> bool:
        """Whether a table has more than so many rows."""
        return self._value(f"SELECT 1 FROM {self._quote(table)} LIMIT 1 OFFSET {rows:d}") is not None

    def largest(self, table: str, column: str) -> int:
        """Return the largest value of an integer column, 0 where there is none."""
        return int(self._value(f"SELECT MAX({self._quote(column)}) FROM {self._quote(table)}") or 0)

    def next_key(self, model: type[Model]) -> int:
        """Return the primary key that the next row of a model with an automatic one will get, or less."""
        return self.largest(model._meta.db_table, str(model._meta.pk.column)) + 1

    def distinct(self, table: str, column: str) -> Iterator[str]:
        """Yield the different texts in a column, empty ones left out."""
        quoted = self._quote(column)
        with self.connection.cursor() as cursor:
            cursor.execute(f"SELECT DISTINCT {quoted} FROM {self._quote(table)} WHERE {quoted} <> ''")
            while page := cursor.fetchmany():
                yield from (value for (value,) in page)

    # Writing, inside a transaction

    @contextmanager
    def exclusive(self, tables: Sequence[str]) -> Iterator[None]:
        """Open a transaction in which nobody else writes to ``tables`` and foreign keys wait until its end."""
        with transaction.atomic(using=self.connection.alias):
            yield

    def begin_bulk_load(self, tables: Sequence[str]) -> None:
        """Prepare empty tables for many rows, if that makes loading faster. Before anything else is written."""

    def suspend_actions(self, tables: Sequence[str]) -> None:
        """Keep foreign keys from acting, in any table, when rows of ``tables`` are deleted to be inserted again.

        Until ``end_bulk_load``, and before anything else is written. Nothing to do where foreign keys are not checked.
        """

    def end_bulk_load(self) -> None:
        """Have the tables as they were. Raises ``IntegrityError`` where the rows do not let them be."""

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Insert rows of query parameters."""
        names = ", ".join(self._quote(column) for column in columns)
        values = ", ".join(["%s"] * len(columns))
        with self.connection.cursor() as cursor:
            cursor.executemany(f"INSERT INTO {self._quote(table)} ({names}) VALUES ({values})", rows)

    @property
    def takes_text(self) -> bool:
        """Whether ``insert_text`` is there, which takes rows as ``text`` writes them in less time than ``insert``."""
        return False

    def insert_text(self, table: str, columns: Sequence[str], texts: Iterable[bytes]) -> None:
        """Insert rows of text by one statement. The database works while ``texts`` are made: they must not ask it."""
        raise NotImplementedError

    def delete(self, table: str, columns: Sequence[str], keys: Iterable[Row]) -> None:
        """Delete the rows that have these primary keys (one value for each key column)."""
        condition = " AND ".join(f"{self._quote(column)} = %s" for column in columns)
        with self.connection.cursor() as cursor:
            for batch in batched(keys, self.PARAMETERS):
                cursor.executemany(f"DELETE FROM {self._quote(table)} WHERE {condition}", batch)

    def empty_references(self, table: str, column: str, values: Iterable[Any]) -> int:
        """Set a column to NULL where it has one of these values; return in how many rows."""
        quoted, emptied = self._quote(column), 0
        with self.connection.cursor() as cursor:
            for batch in batched(values, self.PARAMETERS):
                marks = ", ".join(["%s"] * len(batch))
                cursor.execute(f"UPDATE {self._quote(table)} SET {quoted} = NULL WHERE {quoted} IN ({marks})", batch)
                emptied += cursor.rowcount
        return emptied

    def empty(self, tables: Sequence[str]) -> None:
        """Delete every row of the tables and begin their sequences anew, where a rollback can undo that."""
        with self.connection.cursor() as cursor:
            for table in tables:
                cursor.execute(f"DELETE FROM {self._quote(table)}")

    def reset_sequences(self, models: Mapping[type[Model], int]) -> None:
        """Let the next automatic key of each model follow its largest, and be at least the number given."""
        with self.connection.cursor() as cursor:
            for sql in self.connection.ops.sequence_reset_sql(no_style(), list(models)):
                cursor.execute(sql)

    def after_commit(self, models: Mapping[type[Model], int]) -> None:
        """Do what ``reset_sequences`` could not do inside the transaction."""

    def check_constraints(self) -> None:
        """Make the database check now what it would check at commit. Raises ``IntegrityError``."""
        self.connection.check_constraints()

    def dangling(self, table: str, key: str, column: str, to_table: str, to_column: str) -> Iterator[tuple[Any, Any]]:
        """Yield primary key and value of the rows whose ``column`` refers to nothing."""
        quote = self._quote
        with self.connection.cursor() as cursor:
            cursor.execute(
                f"SELECT t.{quote(key)}, t.{quote(column)} FROM {quote(table)} t"
                f" LEFT JOIN {quote(to_table)} r ON r.{quote(to_column)} = t.{quote(column)}"
                f" WHERE t.{quote(column)} IS NOT NULL AND r.{quote(to_column)} IS NULL"
            )
            yield from cursor.fetchall()

    def savepoint(self) -> AbstractContextManager[None]:
        """Open a savepoint, so that a refused batch can be taken back."""
        savepoint: AbstractContextManager[None] = transaction.atomic(using=self.connection.alias)
        return savepoint

    # One operation at a time

    def lock(self, purpose: str = "operation") -> AbstractContextManager[bool]:
        """Hold a lock on this database for one purpose; give False where another process holds it.

        A holder that dies loses it.
        """
        return nullcontext(True)

    # Scratch databases

    def scratch_name(self, directory: Path, name: str) -> str:
        """Return what a scratch database is called; ``directory`` is for engines that keep them in files."""
        return name

    def databases(self, prefix: str) -> list[str]:
        """Return the names of the databases beside this one that begin so."""
        return []

    def create_database(self, name: str) -> None:
        """Create an empty database beside this one."""
        with self.connection._nodb_cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {self._quote(name)}")

    def drop_database(self, name: str) -> None:
        """Drop a database beside this one, if it exists."""
        with self.connection._nodb_cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {self._quote(name)}")

    def _quote(self, name: str) -> str:
        return str(self.connection.ops.quote_name(name))

    def _value(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        with self.connection.cursor() as cursor:
            cursor.execute(sql, parameters or None)
            row = cursor.fetchone()
        return row[0] if row else None


class PageSize:
    """How many rows to ask for: few at first, then ``most`` of them, or as many as are no more than ``MOST_BYTES``."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.rows = min(most, FIRST_ROWS)

    def learn(self, rows: int, size: int) -> None:
        """Take in how many bytes some rows have had."""
        self.rows = max(1, min(self._most, 10 * self.rows, MOST_BYTES * rows // max(size, 1)))


def weight(rows: Sequence[Row]) -> int:
    """Return about how many bytes rows have, as far as that varies."""
    return sum([len(value) for row in rows for value in row if isinstance(value, str | bytes | memoryview)])


def limited(
    items: Iterable[_Item], most: int, weigh: Callable[[_Item], int], heavy: int = MOST_BYTES
) -> Generator[list[_Item]]:
    """Cut an iterable into lists of at ``most`` so many, which end when they are ``heavy``, in bytes."""
    batch: list[_Item] = []
    size = 0
    for item in items:
        batch.append(item)
        size += weigh(item)
        if len(batch) == most or size >= heavy:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def pages(items: Iterable[_Item], weigh: Callable[[_Item], int]) -> Generator[list[_Item]]:
    """Cut rows into lists of at most ``PAGE_ROWS``, which end when they weigh ``PAGE_BYTES``."""
    return limited(items, PAGE_ROWS, weigh, PAGE_BYTES)


def batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Cut an iterable into lists of at most ``size``."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def _after(columns: Sequence[str]) -> str:
    """The condition that a row's key follows another: a > x, or (a, b) > (x, y) in the longhand all engines index."""
    alternatives = []
    for position, column in enumerate(columns):
        equal = [f"{before} = %s" for before in columns[:position]]
        alternatives.append(" AND ".join([*equal, f"{column} > %s"]))
    return " OR ".join(f"({alternative})" for alternative in alternatives)


def _after_values(last: Sequence[Any]) -> list[Any]:
    return [value for position in range(len(last)) for value in last[: position + 1]]
