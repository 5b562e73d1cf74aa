"""SQLite: one file, one writer at a time."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.db import DataError, OperationalError, transaction
from django.db.models import Model

from backups.databases import base
from backups.databases.base import Row, Selection, batched
from backups.databases.cells import (
    NO_TEXTS,
    NULL,
    NUMBERS,
    ODD,
    ROW,
    ArrayPage,
    CellPage,
    Cells,
    Column,
    Kind,
    TextPage,
)
from backups.errors import BackupError
from backups.pipeline import ahead

ARGUMENTS = 100
"""A function takes at most 127: https://www.sqlite.org/limits.html#max_function_arg."""
PAGE_ROWS = 2000
"""What it costs to begin a statement and to pass its result on is an eighth of all reading with a quarter of them."""


class Database(base.Database):
    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._to_make_again: list[str] = []

    def stream(self, selection: Selection, most: int) -> Iterator[Sequence[Row]]:
        size = base.PageSize(most)
        with _bytes_explained(selection), self.connection.cursor() as cursor:
            cursor.execute(selection.sql(date=self.DATE))
            while page := cursor.fetchmany(size.rows):
                size.learn(len(page), base.weight(page))
                yield selection.convert(page)

    def _read(self, selection: Selection, *where: Any, **options: Any) -> Sequence[Row]:
        with _bytes_explained(selection):
            return super()._read(selection, *where, **options)

    @property
    def kinds(self) -> frozenset[Kind]:
        # All, where SQLite was made with its functions for JSON.
        return frozenset(Kind) if self.connection.features.supports_json_field else frozenset()

    DATE = "+{}"
    """Without the type that the column declares: the driver would give None for what is no date, as for NULL."""

    def cells(self, query: Cells, after: int | None) -> Generator[CellPage]:
        # SQLite works within this process, and does not keep Python from working beside it: a third less of the time.
        self.connection.inc_thread_sharing()
        try:
            yield from ahead(self._cells(query, after))
        finally:
            self.connection.dec_thread_sharing()

    def _cells(self, query: Cells, after: int | None) -> Generator[CellPage]:
        # A page is a few texts: to hand over row by row takes longer than to read them. In an array of JSON, what is no
        # text, or no integer, shows by itself; to check each cell, and join them with printf(), took twice as long.
        arrays = _Arrays(query.columns)
        statement = f"SELECT {arrays.of_row}, {query.key} AS key FROM {query.source}"
        size, rows, wanted = base.PageSize(PAGE_ROWS), 0, 0
        while rows == wanted:
            wanted = size.rows
            where = "" if after is None else f" WHERE {query.key} > {after:d}"
            rows_of_page = f"{statement}{where} ORDER BY {query.key} LIMIT {wanted}"
            page = f"SELECT {arrays.of_page}, COUNT(*), MAX(key) FROM ({rows_of_page})"
            try:
                with self._longest(2 * base.MOST_BYTES // arrays.count):
                    ((*texts, rows, last),) = self._fetch(page, ())
            except DataError:  # large rows after small ones, or a single one that is too large
                if wanted == 1:
                    yield TextPage(ODD.encode(), 1)
                    return
                rows, size.rows = wanted, max(1, wanted // 10)
                continue
            if rows:
                after = last
                size.learn(rows, sum(map(len, texts)))
                yield arrays.page(texts, rows)

    @contextmanager
    def _longest(self, size: int) -> Iterator[None]:
        """Have SQLite raise ``DataError`` before a text is longer: nobody knows what the next rows are like."""
        self.connection.ensure_connection()
        connection = self.connection.connection
        usual = connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, size)
        try:
            yield
        finally:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, usual)

    def _begin_snapshot(self) -> None:
        self._value("SELECT COUNT(*) FROM sqlite_master")  # the first read takes the snapshot, not BEGIN

    @contextmanager
    def exclusive(self, tables: Sequence[str]) -> Iterator[None]:
        # A transaction that begins by reading cannot become a writing one after somebody else has written.
        mode = self.connection.transaction_mode
        self.connection.transaction_mode = "IMMEDIATE"
        # check_constraints() looks at every reference at once; to look each one up when its row is written doubles
        # the time that this takes.
        is_unchecked = self.connection.disable_constraint_checking()
        try:
            with transaction.atomic(using=self.connection.alias):
                yield
        finally:
            self.connection.transaction_mode = mode
            if is_unchecked:
                self.connection.enable_constraint_checking()

    def begin_bulk_load(self, tables: Sequence[str]) -> None:
        """Drop indexes that keep nothing unique: to make them again is a sort, to keep them in step a search a row."""
        with self.connection.cursor() as cursor:
            for table in tables:
                cursor.execute(
                    "SELECT i.name, m.sql FROM pragma_index_list(%s) i JOIN sqlite_master m ON m.name = i.name"
                    ' WHERE i."unique" = 0 AND m.sql IS NOT NULL',
                    [table],
                )
                for name, make in cursor.fetchall():
                    cursor.execute(f"DROP INDEX {self._quote(name)}")
                    self._to_make_again.append(make)

    def end_bulk_load(self) -> None:
        with self.connection.cursor() as cursor:
            for make in self._to_make_again:
                cursor.execute(make)
        self._to_make_again = []

    def empty(self, tables: Sequence[str]) -> None:
        super().empty(tables)
        with self.connection.cursor() as cursor:
            for table in tables:
                cursor.execute("DELETE FROM sqlite_sequence WHERE name = %s COLLATE NOCASE", [table])

    def next_key(self, model: type[Model]) -> int:
        given = self._value("SELECT seq FROM sqlite_sequence WHERE name = %s COLLATE NOCASE", [model._meta.db_table])
        return max(int(given or 0) + 1, super().next_key(model))

    def reset_sequences(self, models: Mapping[type[Model], int]) -> None:
        # AUTOINCREMENT follows the keys that are inserted; what was given away and deleted, it has to be told.
        with self.connection.cursor() as cursor:
            for model, least in models.items():
                given = [least - 1, model._meta.db_table]
                cursor.execute("SELECT 1 FROM sqlite_sequence WHERE name = %s COLLATE NOCASE", given[1:])
                if cursor.fetchone():
                    cursor.execute(
                        "UPDATE sqlite_sequence SET seq = max(seq, %s) WHERE name = %s COLLATE NOCASE", given
                    )
                elif least > 1:
                    cursor.execute("INSERT INTO sqlite_sequence (seq, name) VALUES (%s, %s)", given)

    @contextmanager
    def lock(self, purpose: str = "operation") -> Iterator[bool]:
        if self.connection.is_in_memory_db():
            yield True
            return
        path = Path(os.path.realpath(self.name))  # one lock for one file, whatever links lead to it
        if path.is_dir() or not path.parent.is_dir():
            raise BackupError(f"there can be no database {str(path)!r}", hint="see NAME in DATABASES")
        # The system releases the lock when the holder dies; the empty file stays, because removing it is a race.
        with Path(f"{path}.{purpose}.lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def scratch_name(self, directory: Path, name: str) -> str:
        return str(directory / f"{name}.sqlite3")

    def create_database(self, name: str) -> None:
        Path(name).touch(mode=0o600, exist_ok=False)

    def drop_database(self, name: str) -> None:
        for suffix in ("", "-journal", "-wal", "-shm", ".operation.lock", ".drill.lock"):
            Path(f"{name}{suffix}").unlink(missing_ok=True)


@contextmanager
def _bytes_explained(selection: Selection) -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        if "Could not decode to UTF-8" not in str(error):
            raise
        raise BackupError(
            f"{selection.model._meta.label_lower} has bytes that are not UTF-8 in a column for text",
            hint="correct the row: no package has them",
        ) from None  # which quotes them


class _Arrays:
    """The arrays that cells of these columns are written as: see ``ArrayPage``."""

    def __init__(self, columns: Sequence[Column]) -> None:
        texts = _arrays([column for column in columns if column.kind not in NO_TEXTS])
        numbers = _arrays([column for column in columns if column.kind in NUMBERS])
        documents = [_document(column.sql) for column in columns if column.kind is Kind.JSON]
        written = [*texts, *numbers, *documents]
        self.of_row = ", ".join(f"{one} AS a{number}" for number, one in enumerate(written))
        self.of_page = ", ".join(f"CAST(group_concat(a{number}, '{ROW}') AS BLOB)" for number in range(len(written)))
        self.count = len(written)
        self._ends = len(texts), len(texts) + len(numbers)

    def page(self, written: Sequence[bytes], rows: int) -> ArrayPage:
        """Take what a statement has given apart."""
        texts, numbers = self._ends
        return ArrayPage(written[:texts], written[texts:numbers], written[numbers:], rows)


def _arrays(columns: Sequence[Column]) -> list[str]:
    return [f"json_array({', '.join(some)})" for some in batched(map(_cell, columns), ARGUMENTS)]


def _cell(column: Column) -> str:
    """Write what becomes of a column in an array: 0.5 where it is odd, which is neither text nor integer.

    Bytes come after all else, and newer versions take some for JSON of their own.
    """
    sql = column.sql
    if column.null and column.kind not in NUMBERS:
        return f"CASE WHEN {sql} >= x'' OR {sql} = '{NULL}' THEN 0.5 ELSE ifnull({sql}, '{NULL}') END"
    return f"CASE WHEN {sql} >= x'' THEN 0.5 ELSE {sql} END"


def _document(sql: str) -> str:
    """Write JSON as it is, and no JSON where it is odd."""
    is_sound = f"typeof({sql}) = 'text' AND {sql} <> '{NULL}'"
    return f"CASE WHEN {sql} IS NULL THEN '{NULL}' WHEN {is_sound} THEN {sql} ELSE '' END"
