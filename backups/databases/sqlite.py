"""SQLite: one file, one writer at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.db import DataError, transaction
from django.db.models import Model

from backups.databases import base
from backups.databases.base import Row, Selection
from backups.databases.lines import END, ODD, Kind, LinePage, Lines, Piece, Value
from backups.errors import BackupError

ARGUMENTS = 100
"""A function takes at most 127: https://www.sqlite.org/limits.html#max_function_arg."""
_DIGIT = "[0-9]"
_DAY = f"{_DIGIT * 4}-{_DIGIT * 2}-{_DIGIT * 2}"
_TIME = f"{_DAY} {_DIGIT * 2}:{_DIGIT * 2}:{_DIGIT * 2}"
_UUID = ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))


def _check(value: Value) -> str:
    """Return the condition that a column holds what its kind says, in the form that Django gives it."""
    column = value.sql
    is_text = f"{column} >= '' AND {column} < x'' AND instr({column}, char(0)) = 0"  # printf() ends at the first NUL
    match value.kind:
        case Kind.INTEGER:
            return f"{column} = {column} | 0"
        case Kind.BOOLEAN:
            return f"{column} IN (0, 1)"
        case Kind.DATE:
            return f"{column} GLOB '{_DAY}'"
        case Kind.MOMENT:
            whole = f"{column} GLOB '{_TIME}.{_DIGIT * 6}' AND {column} NOT GLOB '*.000000'"
            return f"({whole} OR {column} GLOB '{_TIME}')"
        case Kind.UUID:
            return f"length({column}) = 32 AND {column} NOT GLOB '*[^0-9a-f]*'"
        case _:
            return is_text


class Database(base.Database):
    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._to_make_again: list[str] = []

    def stream(self, selection: Selection, most: int) -> Iterator[Sequence[Row]]:
        size = base.PageSize(most)
        with self.connection.cursor() as cursor:
            cursor.execute(selection.sql())
            while page := cursor.fetchmany(size.rows):
                size.learn(len(page), base.weight(page))
                yield selection.convert(page)

    WRITES = frozenset(Kind)

    def lines(self, query: Lines, after: int | None) -> Generator[LinePage]:
        # A page is one text: a step for each row would wait each time for whoever works on the page before.
        statement = f"SELECT {self._line(query)} AS line, {query.key} AS key FROM {query.source}"
        size, rows, wanted = base.PageSize(base.LINE_ROWS), 0, 0
        while rows == wanted:
            wanted = size.rows
            where = "" if after is None else f" WHERE {query.key} > {after:d}"
            page = f"{statement}{where} ORDER BY {query.key} LIMIT {wanted}"
            lines = f"SELECT CAST(group_concat(line, '{END}') AS BLOB), COUNT(*), MAX(key) FROM ({page})"
            try:
                ((text, rows, after),) = self._fetch(lines, ())
            except DataError:  # longer than a text may be: 10^9 bytes
                text, rows = ODD.encode(), 1
            if rows:
                size.learn(rows, len(text))
                yield LinePage(text, rows)

    def _line(self, query: Lines) -> str:
        """Write a line where every value is of its kind: a column of SQLite takes whatever it is given."""
        checks = []
        for value, where in query.values():
            optional = where or (value.sql if value.null else "")
            checks.append(f"({optional} IS NULL OR {_check(value)})" if optional else _check(value))
        return f"CASE WHEN {' AND '.join(dict.fromkeys(checks))} THEN {self._joined(query.pieces)} ELSE '{ODD}' END"

    def _joined(self, pieces: Sequence[Piece]) -> str:
        # One function for all parts: joining them two by two copies what is there each time.
        if len(pieces) > ARGUMENTS:
            return f"({self._joined(pieces[:ARGUMENTS])} || {self._joined(pieces[ARGUMENTS:])})"
        form = "".join(piece.replace("%", "%%") if isinstance(piece, str) else "%s" for piece in pieces)
        values = [self._piece(piece) for piece in pieces if not isinstance(piece, str)]
        return f"printf('{form}'{''.join(f', {value}' for value in values)})"

    def _written(self, value: Value) -> str:
        column = value.sql
        match value.kind:
            case Kind.BOOLEAN:
                return f"CASE {column} WHEN 1 THEN 'true' ELSE 'false' END"
            case Kind.MOMENT:
                return f"replace({column}, ' ', 'T') || '+00:00'"
            case Kind.UUID:
                parts = [f"substr({column}, {start}, {length})" for start, length in _UUID]
                return " || '-' || ".join(parts)
            case _:
                return column

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
