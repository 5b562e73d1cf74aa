"""SQLite: one file, one writer at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from django.db import transaction

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

    def reset_sequences(self, models: Sequence[type]) -> None:
        """Nothing to do: AUTOINCREMENT follows the keys that are inserted."""

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
