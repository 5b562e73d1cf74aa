"""MariaDB and MySQL: pages by key, because their cursors hold a whole result; foreign keys that cannot be deferred."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cached_property
from io import FileIO
from itertools import groupby
from operator import itemgetter
from typing import Any

from django.db import DatabaseError, IntegrityError, OperationalError, transaction
from django.db.models import Model
from MySQLdb.constants import FIELD_TYPE
from MySQLdb.cursors import SSCursor

from backups.databases import base
from backups.databases.base import Row, Selection, batched
from backups.databases.cells import CELL, NULL, ODD, ROW, CellPage, Cells, Column, Kind, TextPage
from backups.databases.text import NoText, text_of
from backups.errors import BackupError, TargetNotReady
from backups.pipeline import Worker

DEADLOCK, NO_SUCH_INDEX = 1213, 1176
"""https://mariadb.com/kb/en/mariadb-error-codes/: ER_LOCK_DEADLOCK, and ER_KEY_DOES_NOT_EXITS of a view with a hint."""


JOINS = 50
"""Tables that are joined to one; a statement may name 61: https://mariadb.com/kb/en/join-syntax/."""
STREAM_ROWS = 20_000
"""Rows of one statement: to begin another one costs little then."""
STREAM_SECONDS = 3600
"""The server gives up whoever neither reads nor writes for so long; its own minute is short where disks are slow."""
_ROW, _ODD = ROW.encode(), ODD.encode()

FILE_ROWS = 100
"""Fewer are inserted, which says what is wrong with one."""


NO_INDEX = "USE INDEX ()"
"""Has a table read as it is stored, by its primary key. By another index, InnoDB has to look up every row that this
transaction has written: to count 1.6 million took 16 seconds instead of one."""

DATES = (FIELD_TYPE.DATE, FIELD_TYPE.DATETIME, FIELD_TYPE.TIMESTAMP)


class NoDate(ValueError):
    """What the server keeps in a column of dates, and is none: 0000-00-00."""


class Database(base.Database):
    PARAMETERS = 10_000

    def require_transactional(self, tables: Sequence[str]) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT t.table_name, t.engine FROM information_schema.tables t"
                " JOIN information_schema.engines e ON e.engine = t.engine"
                " WHERE t.table_schema = DATABASE() AND e.transactions <> 'YES' ORDER BY t.table_name"
            )
            known = {table.lower() for table in tables}  # a server may keep no other names
            found = [(table, engine) for table, engine in cursor.fetchall() if table.lower() in known]
        if found:
            named = ", ".join(f"{table} ({engine})" for table, engine in found)
            raise TargetNotReady(
                f"tables that can neither be read as of one moment nor rolled back, for want of transactions: {named}",
                hint=f"ALTER TABLE {self._quote(found[0][0])} ENGINE=InnoDB, and so on; or take their models out with"
                " BACKUPS['EXCLUDE']",
            )

    def _before_snapshot(self) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")

    def _begin_snapshot(self) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")

    def _read(self, selection: Selection, *where: Any, **options: Any) -> Sequence[Row]:
        try:
            with self._dates(_refuse):
                return super()._read(selection, *where, **options)
        except NoDate:
            with self._dates(NoDate):
                rows = super()._read(selection, *where, **options)
        for row in rows:
            for index, value in enumerate(row):
                if isinstance(value, NoDate):
                    raise _no_date(selection, row, selection.sql_of(index))
        return rows

    @contextmanager
    def _dates(self, otherwise: Callable[[str], Any]) -> Iterator[None]:
        """Let the driver read what is no date so: it gives None, as for NULL."""

        def reading(convert: Callable[[str], Any]) -> Callable[[str], Any]:
            return lambda text: otherwise(text) if (value := convert(text)) is None else value

        self.connection.ensure_connection()
        converters = self.connection.connection.converter
        usual = {kind: converters[kind] for kind in DATES}
        converters.update({kind: reading(convert) for kind, convert in usual.items()})
        try:
            yield
        finally:
            converters.update(usual)

    kinds = frozenset(Kind) - {Kind.UUID}  # a type of its own or text, depending on the server that made the column

    def cells(self, query: Cells, after: int | None) -> Generator[CellPage]:
        # The server goes on while a page is worked on. What is left is read to its end even where nobody wants it, so
        # that it cannot be the whole table.
        # One null among the cells makes a row of null.
        of_bytes = self._of_bytes(query)
        cells = f", '{CELL}', ".join(
            self._sound(column) if column.sql in of_bytes else self._cell(column) for column in query.columns
        )
        row = f"CAST(CONCAT({cells}) AS BINARY)"
        statement = f"SELECT {row}, {query.key} FROM {query.source}"
        rows = STREAM_ROWS
        while rows == STREAM_ROWS:
            where = "" if after is None else f" WHERE {query.key} > {after:d}"
            rows = 0
            with closing(self._stream(f"{statement}{where} ORDER BY {query.key} LIMIT {STREAM_ROWS}")) as streamed:
                for page in base.pages(streamed, lambda row: len(row[0] or _ODD)):
                    rows += len(page)
                    after = page[-1][1]
                    yield TextPage(_ROW.join([row or _ODD for row, _ in page]), len(page))

    def _of_bytes(self, query: Cells) -> set[str]:
        """Return the columns for text that are of bytes, as no migration makes them, as the statement has them."""
        texts = [column.sql for column in query.columns if column.kind in (Kind.TEXT, Kind.JSON)]
        sets = ", ".join(f"CHARSET({sql})" for sql in texts)
        found = self._fetch(f"SELECT {sets} FROM {query.source} LIMIT 1", ()) if texts else ()
        return {sql for row in found for sql, name in zip(texts, row, strict=True) if name == "binary"}

    def _stream(self, statement: str) -> Generator[Row]:
        """Run a statement whose result the server holds until it is read."""
        self.connection.ensure_connection()
        with self.connection.wrap_database_errors, closing(self.connection.connection.cursor(SSCursor)) as cursor:
            cursor.execute(f"SET net_write_timeout = {STREAM_SECONDS}")
            cursor.execute(statement)
            while rows := cursor.fetchmany(base.FIRST_ROWS):
                yield from rows

    def _cell(self, column: Column) -> str:
        """Write a column as text, or ``NULL`` where it is null; a text that is taken for that is odd."""
        written = self._written(column)
        if not column.null:
            return written
        if column.kind in (Kind.TEXT, Kind.JSON):
            written = f"REPLACE({written}, '{NULL}', '{ODD}')"
        return f"CASE WHEN {column.sql} IS NULL THEN '{NULL}' ELSE {written} END"

    def _sound(self, column: Column) -> str:
        """Write bytes as text, or make null, which is odd, of what is none: to convert that loses it."""
        return f"IF({column.sql} <=> CONVERT({self._written(column)} USING binary), {self._cell(column)}, NULL)"

    def _written(self, column: Column) -> str:
        match column.kind:
            # What is added makes null, which is odd, of what is no date.
            case Kind.DATE:
                return f"{column.sql} + INTERVAL 0 DAY"
            case Kind.MOMENT:
                return f"{column.sql} + INTERVAL 0 MICROSECOND"
            case Kind.INTEGER:
                return column.sql
            # Each column by itself: text of several character sets cannot be joined, and next to bytes it is bytes.
            case _:
                return f"CONVERT({column.sql} USING utf8mb4)"

    def count(self, table: str) -> int:
        try:
            return int(self._value(f"SELECT COUNT(*) FROM {self._quote(table)} {NO_INDEX}"))
        except DatabaseError as error:
            # Nothing else is tried again: what a deadlock has rolled back is the snapshot, too.
            if error.args[0] != NO_SUCH_INDEX:
                raise
        return super().count(table)

    def distinct(self, table: str, column: str) -> Iterator[str]:
        # Most collations take 'a' for 'A', and nearly all 'a' for 'a '; no file system and no storage does.
        quoted = self._quote(column)
        text = f"CAST(CONVERT({quoted} USING utf8mb4) AS BINARY)"
        with self.connection.cursor() as cursor:
            cursor.execute(f"SELECT DISTINCT {text} FROM {self._quote(table)} WHERE LENGTH({quoted}) > 0")
            while page := cursor.fetchmany():
                yield from (value.decode() for (value,) in page)

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        if len(rows) >= FILE_ROWS and self.takes_text:
            with suppress(NoText):
                return self.insert_text(table, columns, [text_of(rows)])
        return super().insert(table, columns, rows)

    def insert_text(self, table: str, columns: Sequence[str], texts: Iterable[bytes]) -> None:
        names = ", ".join(self._quote(column) for column in columns)
        with self.connection.cursor() as cursor:
            cursor.execute(f"SET net_read_timeout = {STREAM_SECONDS}")
            source, sink = os.pipe()
            with os.fdopen(source, "rb", buffering=0) as read, os.fdopen(sink, "wb", buffering=0) as written:

                def load(statement: str) -> None:
                    with read:  # so that nobody goes on writing to a statement that has failed
                        cursor.execute(statement)

                with Worker(load) as loader:
                    with written:  # whose end ends the statement, whatever was raised
                        loader.give(
                            f"LOAD DATA LOCAL INFILE '/dev/fd/{source}' INTO TABLE {self._quote(table)}"
                            " CHARACTER SET utf8mb4 FIELDS TERMINATED BY X'09' ESCAPED BY X'5C'"
                            f" LINES TERMINATED BY X'0A' ({names})"
                        )
                        rows = 0
                        for text in texts:
                            rows += text.count(b"\n")
                            if not _is_read(text, written):
                                break
                    loader.result()
            taken = cursor.rowcount
        # LOCAL makes warnings of errors, and skips a row that collides with another one.
        if taken != rows or self._value("SELECT @@warning_count"):
            raise IntegrityError(f"{rows - taken} of {rows} rows were not taken as they are")

    @cached_property
    def takes_text(self) -> bool:
        """Whether client and server agree to LOAD DATA LOCAL, which takes rows in a third of the time of INSERT."""
        allowed = self.connection.settings_dict["OPTIONS"].get("local_infile")
        return bool(allowed and self._value("SELECT @@local_infile"))

    @contextmanager
    def exclusive(self, tables: Sequence[str]) -> Iterator[None]:
        self.require_transactional(tables)
        with self.connection.cursor() as cursor:
            cursor.execute("SET @backups_foreign_key_checks = @@foreign_key_checks")
            cursor.execute("SET foreign_key_checks = 0")
        self._before_snapshot()
        session = self.connection.connection
        try:
            with transaction.atomic(using=self.connection.alias):
                self._lock_rows(tables)
                yield
        finally:
            if self._is_still(session):
                with self.connection.cursor() as cursor:
                    cursor.execute("SET foreign_key_checks = @backups_foreign_key_checks")

    def _lock_rows(self, tables: Sequence[str]) -> None:
        """Keep others from writing: LOCK TABLES would commit, but a locking read takes every row and every gap.

        It reads the primary index, whose locks no writer can do without, and comes before the first reading that
        takes the snapshot. In a deadlock with a writer the server rolls this transaction back, and we begin again.
        """
        for left in reversed(range(base.DEADLOCKS)):
            try:
                with self.connection.cursor() as cursor:
                    for table in tables:
                        cursor.execute(f"SELECT COUNT(*) FROM {self._quote(table)} {NO_INDEX} FOR UPDATE")
                        cursor.fetchall()
            except OperationalError as error:
                if not left or error.args[0] != DEADLOCK:
                    raise
                self._before_snapshot()
            else:
                return

    def next_key(self, model: type[Model]) -> int:
        given = self._value(
            "SELECT auto_increment FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = %s",
            [model._meta.db_table],
        )
        return max(int(given or 0), super().next_key(model))

    def reset_sequences(self, models: Mapping[type[Model], int]) -> None:
        """Nothing to do yet: InnoDB's counters follow the keys that are inserted, and setting one would commit."""

    def after_commit(self, models: Mapping[type[Model], int]) -> None:
        for model, least in models.items():
            if least > self.next_key(model):
                with self.connection.cursor() as cursor:
                    cursor.execute(f"ALTER TABLE {self._quote(model._meta.db_table)} AUTO_INCREMENT = {int(least)}")

    def check_constraints(self) -> None:
        """Look for rows that refer to nothing, in one pass over each table: Django makes one for each foreign key."""
        tables = ((table, some) for table, all_of in self._foreign_keys().items() for some in batched(all_of, JOINS))
        for table, references in tables:
            joins, dangles = [], []
            for number, (to_table, columns) in enumerate(references):
                equal = [f"r{number}.{self._quote(to)} = t.{self._quote(column)}" for column, to in columns]
                joins.append(f" LEFT JOIN {to_table} r{number} ON {' AND '.join(equal)}")
                held = [f"t.{self._quote(column)} IS NOT NULL" for column, _ in columns]
                dangles.append(f"({' AND '.join(held)} AND r{number}.{self._quote(columns[0][1])} IS NULL)")
            found = f"FROM {self._quote(table)} t {NO_INDEX}{''.join(joins)} WHERE {' OR '.join(dangles)}"
            if self._value(f"SELECT 1 {found} LIMIT 1"):
                raise IntegrityError(f"{table} has rows that refer to none")

    def _foreign_keys(self) -> dict[str, list[tuple[str, list[tuple[str, str]]]]]:
        """Return what the foreign keys of each table refer to: a table, and pairs of their columns with its own."""
        with self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT table_name, constraint_name, referenced_table_schema, referenced_table_name, column_name,"
                " referenced_column_name FROM information_schema.key_column_usage"
                " WHERE table_schema = DATABASE() AND referenced_table_name IS NOT NULL"
                " ORDER BY table_name, constraint_name, ordinal_position"
            )
            rows = cursor.fetchall()
        found: dict[str, list[tuple[str, list[tuple[str, str]]]]] = {}
        for (table, _), group in groupby(rows, key=itemgetter(0, 1)):
            columns = list(group)
            to_table = f"{self._quote(columns[0][2])}.{self._quote(columns[0][3])}"
            found.setdefault(table, []).append((to_table, [(row[4], row[5]) for row in columns]))
        return found

    def databases(self, prefix: str) -> list[str]:
        with self.connection.cursor() as cursor:
            cursor.execute("SHOW DATABASES")
            return [name for (name,) in cursor.fetchall() if name.startswith(prefix)]

    def create_database(self, name: str) -> None:
        """Create an empty database that takes the same characters: the server's own default may be latin1."""
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT @@character_set_database, @@collation_database")
            characters, collation = cursor.fetchone()
            cursor.execute(f"CREATE DATABASE {self._quote(name)} CHARACTER SET {characters} COLLATE {collation}")

    @contextmanager
    def lock(self, purpose: str = "operation") -> Iterator[bool]:
        # The lock is the server's: its name carries the database. It ends with the connection that holds it.
        name = f"backups-{purpose}-{zlib.crc32(self.name.encode()):08x}"
        held = self._value("SELECT GET_LOCK(%s, 0)", [name]) == 1
        session = self.connection.connection
        try:
            yield held
        finally:
            if held and self._is_still(session):
                self._value("SELECT RELEASE_LOCK(%s)", [name])

    def _is_still(self, session: object) -> bool:
        """Whether a session goes on. Whoever interrupts a statement loses it, and Django opens another one."""
        return session is self.connection.connection and bool(self.connection.is_usable())


def _is_read(text: bytes, file: FileIO) -> bool:
    """Write all of a text to a pipe. Return whether somebody reads it."""
    left = memoryview(text)
    try:
        while left:
            left = left[file.write(left) :]
    except BrokenPipeError:
        return False
    return True


def _refuse(text: str) -> Any:
    raise NoDate(text)


def _no_date(selection: Selection, row: Row, column: str) -> BackupError:
    return BackupError(
        f"{selection.name_of(row)} has what is no date, such as 0000-00-00, in {column.partition('.')[2]}",
        hint="correct the row: no other database has such a date, and NULL is not the same",
    )
