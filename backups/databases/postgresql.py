"""PostgreSQL: server-side cursors, COPY, transactional TRUNCATE and sequences, advisory locks."""

from __future__ import annotations

import zlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import OperationalError, ProgrammingError, transaction
from django.db.backends.base.introspection import TableInfo
from django.db.models import AutoField, Model
from django.db.models.fields import AutoFieldMixin
from psycopg import Copy, Error
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn
from psycopg.types.datetime import TimestamptzLoader

from backups.databases import base
from backups.databases.base import Row, Selection
from backups.databases.cells import CellPage, Cells, Column, Kind, TextPage
from backups.errors import TargetNotReady

KEEPALIVES = {"tcp_keepalives_idle": 60, "tcp_keepalives_interval": 10, "tcp_keepalives_count": 6}
"""The server asks after so many seconds of silence, and then so often: what does not answer is gone in two minutes."""

DEADLOCK, INSUFFICIENT_PRIVILEGE = "40P01", "42501"
"""https://www.postgresql.org/docs/current/errcodes-appendix.html."""

_FOREIGN_KEYS = (
    "SELECT format('ALTER TABLE %%s DROP CONSTRAINT %%I', conrelid::regclass, conname),"
    " format('ALTER TABLE %%s ADD CONSTRAINT %%I %%s', conrelid::regclass, conname, pg_get_constraintdef(oid))"
    " FROM pg_constraint WHERE contype = 'f' AND conparentid = 0"
)
"""What drops a foreign key, and makes it again; that of a partition goes with that of its table."""

ALL_ROWS = "SET LOCAL row_security = off"
"""The server raises an error where a policy would hide a row, as it does for pg_dump."""


class Database(base.Database):
    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._to_make_again: list[str] = []

    PARAMETERS = 10_000
    """The protocol allows 65,535; beyond some thousand, planning costs more than another round trip."""

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        with _privileges_explained(), super().snapshot():
            yield

    def _begin_snapshot(self) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            cursor.execute(ALL_ROWS)

    def table_of(self, name: str, listed: Mapping[str, str]) -> TableInfo:
        found = super().table_of(name, listed)
        if found.name in listed:
            return found
        # Projects write other"."table for a table of another schema; and for one of the same, which is listed then.
        ((name, kind),) = self._fetch(
            "SELECT CASE WHEN pg_table_is_visible(c.oid) THEN relname"
            " ELSE concat(relnamespace::regnamespace::text, '\".\"', relname) END,"
            " CASE WHEN relkind IN ('v', 'm') THEN 'v' ELSE 't' END FROM pg_class c WHERE oid = %s::regclass",
            [self._quote(name)],
        )
        return TableInfo(name, kind)

    def stream(self, selection: Selection, most: int) -> Iterator[Sequence[Row]]:
        # A server-side cursor plans the joins once, where pages would plan them for each page.
        size = base.PageSize(most)
        with self.connection.chunked_cursor() as cursor:
            if self.connection.timezone is not None:
                # The moment is the same in any time zone; Django's own loader, which exchanges that, is Python.
                cursor.adapters.register_loader("timestamptz", TimestamptzLoader)
            cursor.execute(selection.sql())
            while page := cursor.fetchmany(size.rows):
                size.learn(len(page), base.weight(page))
                yield selection.convert(page)

    kinds = frozenset(Kind)

    def cells(self, query: Cells, after: int | None) -> Generator[CellPage]:
        columns = ", ".join(self._written(column) for column in query.columns)
        where = "" if after is None else f" WHERE {query.key} > {after:d}"
        sql = f"SELECT {columns} FROM {query.source}{where} ORDER BY {query.key}"
        # COPY goes on while a page is worked on, where a cursor waits to be asked. A reader that goes away early has it
        # cancelled, which the transaction outlives only with a savepoint.
        with (
            self.savepoint(),
            self.connection.cursor() as cursor,
            self.connection.wrap_database_errors,
        ):
            style = self.connection.connection.info.parameter_status("DateStyle")
            is_iso = style.startswith("ISO")
            if not is_iso:
                cursor.execute("SET LOCAL datestyle = 'ISO'")
            with cursor.copy(f"COPY ({sql}) TO STDOUT") as copy:
                for page in _pages(copy):
                    yield TextPage(b"".join(page)[:-1], len(page), escaped=True)
            if not is_iso:
                cursor.execute(f"SET LOCAL datestyle = '{style}'")

    def _written(self, column: Column) -> str:
        return f"{column.sql} AT TIME ZONE 'UTC'" if column.kind is Kind.MOMENT else column.sql

    @contextmanager
    def exclusive(self, tables: Sequence[str]) -> Iterator[None]:
        with (
            _privileges_explained(),
            transaction.atomic(using=self.connection.alias),
            self.connection.cursor() as cursor,
        ):
            cursor.execute(ALL_ROWS)
            # Readers go on; writers wait until we have committed, and see all of it or nothing.
            self._lock_tables(tables)
            cursor.execute("SET CONSTRAINTS ALL DEFERRED")
            yield

    def _lock_tables(self, tables: Sequence[str]) -> None:
        """Lock tables one after the other; in a deadlock with somebody who writes to them in another order, again."""
        names = ", ".join(self._quote(table) for table in tables)
        for left in reversed(range(base.DEADLOCKS)):
            try:
                with self.savepoint(), self.connection.cursor() as cursor:  # whose end lets the others go on
                    cursor.execute(f"LOCK TABLE {names} IN SHARE ROW EXCLUSIVE MODE")
            except OperationalError as error:
                if not left or getattr(error.__cause__, "sqlstate", "") != DEADLOCK:
                    raise
            else:
                return

    def begin_bulk_load(self, tables: Sequence[str]) -> None:
        """Drop foreign keys and plain indexes: to make them again costs half of what it costs to keep them in step.

        The rows go in unchecked, and making a foreign key checks all of them at once. Uniqueness is kept throughout,
        so that a row that collides is found where it is. Nobody else sees any of it, but all wait until the commit.
        """
        with self.connection.cursor() as cursor:
            cursor.execute(
                # An index of a partitioned table is one of each partition, and its definition is that of none.
                "WITH plain AS (SELECT oid FROM pg_class WHERE oid = ANY(%s::regclass[]) AND relkind = 'r'"
                " AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = pg_class.oid))"
                f" {_FOREIGN_KEYS} AND conrelid IN (SELECT oid FROM plain)"
                " UNION ALL "
                "SELECT format('DROP INDEX %%s', indexrelid::regclass), pg_get_indexdef(indexrelid) FROM pg_index"
                " WHERE NOT indisunique AND NOT indisexclusion AND NOT indisclustered"
                " AND indrelid IN (SELECT oid FROM plain)",
                [self._names(tables)],
            )
            self._drop(cursor.fetchall())

    def suspend_actions(self, tables: Sequence[str]) -> None:
        """Drop the foreign keys to these tables that do something or refuse at once, of whatever table.

        Django makes none of those, but others do. Making them again finds the rows that refer to none by then.
        """
        with self.connection.cursor() as cursor:
            cursor.execute(
                f"{_FOREIGN_KEYS} AND (confdeltype <> 'a' OR NOT condeferrable) AND confrelid = ANY(%s::regclass[])",
                [self._names(tables)],
            )
            self._drop(cursor.fetchall())

    def _names(self, tables: Sequence[str]) -> list[str]:
        return [self._quote(table) for table in tables]

    def _drop(self, statements: Sequence[Row]) -> None:
        """Run the first of each pair of statements; the second makes again what it drops."""
        with self.connection.cursor() as cursor:
            for drop, make in statements:
                cursor.execute(drop)
                self._to_make_again.append(make)

    def end_bulk_load(self) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # a table with checks to come cannot be altered
            for make in sorted(self._to_make_again):  # foreign keys, then indexes, in a settled order
                cursor.execute(make)
            cursor.execute("SET CONSTRAINTS ALL DEFERRED")
        self._to_make_again = []

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        names = ", ".join(self._quote(column) for column in columns)
        with (
            self.connection.cursor() as cursor,
            self.connection.wrap_database_errors,
            cursor.copy(f"COPY {self._quote(table)} ({names}) FROM STDIN") as copy,
        ):
            for row in rows:
                copy.write_row(row)

    takes_text = True

    def insert_text(self, table: str, columns: Sequence[str], texts: Iterable[bytes]) -> None:
        names = ", ".join(self._quote(column) for column in columns)
        raised: BaseException | None = None
        with self.connection.cursor() as cursor, self.connection.wrap_database_errors:
            try:
                with cursor.copy(f"COPY {self._quote(table)} ({names}) FROM STDIN") as copy:
                    try:
                        for text in texts:
                            copy.write(text)
                    except BaseException as error:
                        raised = error
                        raise
            except Error:
                if raised is not None:  # what the server says after Ctrl-C is not what has happened
                    raise raised from None
                raise

    def empty(self, tables: Sequence[str]) -> None:
        names = self._names(tables)
        with self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT 1 FROM pg_constraint WHERE contype = 'f' AND confrelid = ANY(%s::regclass[])"
                " AND NOT conrelid = ANY(%s::regclass[]) LIMIT 1",
                [names, names],
            )
            if cursor.fetchone():  # TRUNCATE refuses a table that another one refers to, even where that one is empty
                super().empty(tables)
            else:
                cursor.execute(f"TRUNCATE {', '.join(names)} RESTART IDENTITY")

    def next_key(self, model: type[Model]) -> int:
        sequence = self._sequence(model, str(model._meta.pk.column))
        if sequence is None:
            return super().next_key(model)
        return int(self._value(f"SELECT last_value + is_called::int FROM {sequence}"))

    def _sequence(self, model: type[Model], column: str) -> str | None:
        name: str | None = self._value(
            "SELECT pg_get_serial_sequence(%s, %s)", [self._quote(model._meta.db_table), column]
        )
        return name

    def reset_sequences(self, models: Mapping[type[Model], int]) -> None:
        # Django's setval() survives a rollback; ALTER SEQUENCE does not.
        with self.connection.cursor() as cursor:
            for model, least in models.items():
                for field in model._meta.local_concrete_fields:
                    is_automatic = isinstance(field, (AutoField, AutoFieldMixin))
                    sequence = self._sequence(model, str(field.column)) if is_automatic else None
                    if sequence is None:
                        continue
                    # Never backwards: a key that was given away once may still be named in a log.
                    given = self._value(f"SELECT last_value + is_called::int FROM {sequence}")
                    largest = self.largest(model._meta.db_table, str(field.column))
                    last = self._value("SELECT seqmax FROM pg_sequence WHERE seqrelid = %s::regclass", [sequence])
                    first = min(max(given, largest + 1, least), last)
                    cursor.execute(f"ALTER SEQUENCE {sequence} RESTART WITH {first}")

    def check_constraints(self) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            cursor.execute("SET CONSTRAINTS ALL DEFERRED")

    @contextmanager
    def lock(self, purpose: str = "operation") -> Iterator[bool]:
        # Advisory locks are per database and end with the connection that holds them. A host that has gone without a
        # word keeps its connection until the server asks for it, which by default is after two hours.
        with self.connection.cursor() as cursor:
            for name, value in KEEPALIVES.items():
                cursor.execute(f"SET {name} = {value}")
        key = zlib.crc32(f"django-backups-{purpose}".encode())
        held = bool(self._value("SELECT pg_try_advisory_lock(%s)", [key]))
        try:
            yield held
        finally:
            if held and self._is_usable():
                self._value("SELECT pg_advisory_unlock(%s)", [key])

    def databases(self, prefix: str) -> list[str]:
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [prefix])
            return [name for (name,) in cursor.fetchall()]

    def drop_database(self, name: str) -> None:
        with self.connection._nodb_cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {self._quote(name)} WITH (FORCE)")

    def _is_usable(self) -> bool:
        connection: Any = self.connection.connection
        return connection is not None and not connection.closed


def _pages(copy: Copy) -> Generator[list[bytes]]:
    """Cut the rows of a COPY into pages, and wait only where none has come yet.

    psycopg waits for each row by itself, which takes longer than all else that Python does until it is in a page. To
    hand each to ``base.pages`` would take a twelfth of a backup's processor time.
    """
    connection = copy.connection.pgconn
    page, weight = list[bytes](), 0
    for row in copy:
        size = len(row)
        while size > 0:
            page.append(bytes(row))
            weight += size
            if len(page) == base.PAGE_ROWS or weight >= base.PAGE_BYTES:
                yield page
                page, weight = [], 0
            size, row = connection.get_copy_data(1)
        if size < 0:
            _finish(connection)
            break
    if page:
        yield page


def _finish(connection: PGconn) -> None:
    """Take the result of a COPY whose last row has come."""
    for result in list(iter(connection.get_result, None)):
        if result.status != ExecStatus.COMMAND_OK:
            raise error_from_result(result)


@contextmanager
def _privileges_explained() -> Iterator[None]:
    try:
        yield
    except ProgrammingError as error:
        if getattr(error.__cause__, "sqlstate", "") != INSUFFICIENT_PRIVILEGE:
            raise
        raise TargetNotReady(
            f"the database role may not do all of this: {str(error).splitlines()[0]}",
            hint="use the role that owns the tables; where policies hide rows, one with BYPASSRLS",
        ) from error
