"""SQLite: one file, one writer at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from django.db import transaction
from django.db.models import Model

from backups.databases import base
from backups.databases.base import Row, Selection


class Database(base.Database):
    def stream(self, selection: Selection, size: int) -> Iterator[Sequence[Row]]:
        with self.connection.cursor() as cursor:
            cursor.execute(selection.sql())
            while page := cursor.fetchmany(size):
                yield selection.convert(page)

    def _begin_snapshot(self) -> None:
        self._value("SELECT COUNT(*) FROM sqlite_master")  # the first read takes the snapshot, not BEGIN

    @contextmanager
    def exclusive(self, tables: Sequence[str]) -> Iterator[None]:
        # A transaction that begins by reading cannot become a writing one after somebody else has written.
        mode = self.connection.transaction_mode
        self.connection.transaction_mode = "IMMEDIATE"
        try:
            with transaction.atomic(using=self.connection.alias):
                yield
        finally:
            self.connection.transaction_mode = mode

    def empty(self, tables: Sequence[str]) -> None:
        super().empty(tables)
        with self.connection.cursor() as cursor:
            for table in tables:
                cursor.execute("DELETE FROM sqlite_sequence WHERE name = %s", [table])

    def next_key(self, model: type[Model]) -> int:
        given = self._value("SELECT seq FROM sqlite_sequence WHERE name = %s", [model._meta.db_table])
        return max(int(given or 0) + 1, super().next_key(model))

    def reset_sequences(self, models: Mapping[type[Model], int]) -> None:
        # AUTOINCREMENT follows the keys that are inserted; what was given away and deleted, it has to be told.
        with self.connection.cursor() as cursor:
            for model, least in models.items():
                given = [least - 1, model._meta.db_table]
                cursor.execute("SELECT 1 FROM sqlite_sequence WHERE name = %s", given[1:])
                if cursor.fetchone():
                    cursor.execute("UPDATE sqlite_sequence SET seq = max(seq, %s) WHERE name = %s", given)
                elif least > 1:
                    cursor.execute("INSERT INTO sqlite_sequence (seq, name) VALUES (%s, %s)", given)

    @contextmanager
    def lock(self, purpose: str = "operation") -> Iterator[bool]:
        if self.connection.is_in_memory_db():
            yield True
            return
        # The system releases the lock when the holder dies; the empty file stays, because removing it is a race.
        with Path(f"{self.name}.{purpose}.lock").open("a") as file:
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
