"""MariaDB and MySQL: pages by key, because their cursors hold a whole result; foreign keys that cannot be deferred."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from django.db import OperationalError, transaction
from django.db.models import Model

from backups.databases import base

DEADLOCK = 1213
"""https://mariadb.com/kb/en/mariadb-error-codes/: ER_LOCK_DEADLOCK."""


class Database(base.Database):
    PARAMETERS = 10_000

    def _before_snapshot(self) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")

    def _begin_snapshot(self) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")

    def distinct(self, table: str, column: str) -> Iterator[str]:
        # Most collations take 'a' for 'A'; no file system and no storage does.
        quoted = self._quote(column)
        text = f"CONVERT({quoted} USING utf8mb4) COLLATE utf8mb4_bin"
        with self.connection.cursor() as cursor:
            cursor.execute(f"SELECT DISTINCT {text} FROM {self._quote(table)} WHERE {quoted} <> ''")
            while page := cursor.fetchmany():
                yield from (value for (value,) in page)

    @contextmanager
    def exclusive(self, tables: Sequence[str]) -> Iterator[None]:
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
                        cursor.execute(f"SELECT COUNT(*) FROM {self._quote(table)} FORCE INDEX (PRIMARY) FOR UPDATE")
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
