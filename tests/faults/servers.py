"""Databases as their drivers show them, without Django and without the engine: making, copying and dumping them."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import dj_database_url

from tests.engines import URLS

OWN = ("backups_", "core_auditevent", "django_session")
"""Tables that tell of an operation, whatever became of it."""

Tables = dict[str, list[tuple[tuple[str, str], ...]]]


def server(engine: str, directory: Path, url: str = "") -> Server:
    """Return the server of an engine: that of the tests, or at a URL. Raises the driver's error where none answers."""
    return {"sqlite": SQLite, "postgresql": PostgreSQL, "mariadb": MariaDB}[engine](directory, url or URLS[engine])


class Server:
    """What the faults need of every engine. ``directory`` is for databases that are files, ``root`` for the others."""

    rolls_back_counters = True
    """Whether the automatic keys that a transaction took are free again when it is rolled back."""
    can_cut = True
    quote = '"'

    def __init__(self, directory: Path, root: str) -> None:
        self.directory = directory
        self.root = root

    def url(self, database: str) -> str:
        raise NotImplementedError

    def create(self, database: str) -> None:
        raise NotImplementedError

    def drop(self, database: str) -> None:
        raise NotImplementedError

    def copy(self, source: str, target: str) -> None:
        """Make ``target`` what ``source`` is."""
        raise NotImplementedError

    def cut(self, database: str) -> int:
        """End every connection to a database and return how many there were."""
        raise NotImplementedError

    def databases(self, prefix: str) -> list[str]:
        return []

    @contextmanager
    def connected(self, database: str) -> Iterator[Any]:
        """Open a connection that commits what is done in it at the end."""
        raise NotImplementedError
        yield

    def query(self, database: str, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self.connected(database) as connection, closing(connection.cursor()) as cursor:
            cursor.execute(sql, parameters) if parameters else cursor.execute(sql)
            return list(cursor.fetchall()) if cursor.description else []

    def rows(self, database: str) -> Tables:
        """Return every row of every table, column by column, but for the tables that tell of operations."""
        found: Tables = {}
        with self.connected(database) as connection, closing(connection.cursor()) as cursor:
            for table in self._tables(cursor):
                if not table.startswith(OWN):
                    cursor.execute(f"SELECT * FROM {self.quote}{table}{self.quote}")
                    names = [column[0] for column in cursor.description]
                    rows = (tuple(zip(names, map(str, row), strict=True)) for row in cursor.fetchall())
                    found[table] = sorted(rows)
        return found

    def references(self, database: str) -> dict[tuple[str, str], str]:
        """Return the table that each foreign key column refers to."""
        raise NotImplementedError

    def sequences(self, database: str) -> dict[str, str]:
        """Return what the next automatic key of each table depends on."""
        raise NotImplementedError

    def schema(self, database: str) -> list[str]:
        """Return tables, indexes and constraints as the database describes them."""
        raise NotImplementedError

    def _tables(self, cursor: Any) -> list[str]:
        raise NotImplementedError


class SQLite(Server):
    can_cut = False

    def url(self, database: str) -> str:
        return f"sqlite:///{self._path(database)}"

    def create(self, database: str) -> None:
        self._path(database).touch()

    def drop(self, database: str) -> None:
        for path in self.directory.glob(f"{database}.sqlite3*"):
            path.unlink()

    def copy(self, source: str, target: str) -> None:
        self.drop(target)
        shutil.copyfile(self._path(source), self._path(target))

    @contextmanager
    def connected(self, database: str) -> Iterator[Any]:
        with closing(sqlite3.connect(self._path(database), timeout=30)) as connection:
            yield connection
            connection.commit()

    def references(self, database: str) -> dict[tuple[str, str], str]:
        with self.connected(database) as connection:
            return {
                (table, row[3]): row[2]
                for table in self._tables(connection.cursor())
                for row in connection.execute(f"PRAGMA foreign_key_list('{table}')")
            }

    def sequences(self, database: str) -> dict[str, str]:
        rows = self.query(database, "SELECT name, seq FROM sqlite_sequence")
        return {name: str(value) for name, value in rows if not name.startswith(OWN)}

    def schema(self, database: str) -> list[str]:
        broken = self.query(database, "PRAGMA integrity_check") + self.query(database, "PRAGMA foreign_key_check")
        made = self.query(database, "SELECT type, name, tbl_name, sql FROM sqlite_master")
        return sorted(map(str, broken + made))

    def _tables(self, cursor: Any) -> list[str]:
        cursor.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        return [name for (name,) in cursor.fetchall()]

    def _path(self, database: str) -> Path:
        return self.directory / f"{database}.sqlite3"


class PostgreSQL(Server):
    def __init__(self, directory: Path, root: str) -> None:
        super().__init__(directory, root)
        self._settings: Any = dj_database_url.parse(root)
        self._administer("SELECT 1")

    def url(self, database: str) -> str:
        return f"{self.root.rpartition('/')[0]}/{database}"

    def create(self, database: str) -> None:
        self._administer(f'CREATE DATABASE "{database}"')

    def drop(self, database: str) -> None:
        self._administer(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')

    def copy(self, source: str, target: str) -> None:
        self.drop(target)
        self._administer(f'CREATE DATABASE "{target}" TEMPLATE "{source}"')

    def cut(self, database: str) -> int:
        sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
        return len(self._administer(sql, (database,)))

    def databases(self, prefix: str) -> list[str]:
        rows = self._administer("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", (prefix,))
        return [name for (name,) in rows]

    @contextmanager
    def connected(self, database: str) -> Iterator[Any]:
        import psycopg

        with psycopg.connect(
            host=self._settings["HOST"],
            port=self._settings["PORT"],
            user=self._settings["USER"],
            password=self._settings["PASSWORD"] or None,
            dbname=database,
            options="-c TimeZone=UTC",
        ) as connection:
            yield connection

    def references(self, database: str) -> dict[tuple[str, str], str]:
        rows = self.query(
            database,
            "SELECT c.conrelid::regclass::text, a.attname, c.confrelid::regclass::text FROM pg_constraint c"
            " JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1] WHERE c.contype = 'f'",
        )
        return {(table, column): target for table, column, target in rows}

    def sequences(self, database: str) -> dict[str, str]:
        names = self.query(database, "SELECT sequencename FROM pg_sequences WHERE schemaname = 'public'")
        wanted = [name for (name,) in names if not name.startswith(OWN)]
        union = " UNION ALL ".join(f"SELECT '{name}', last_value, is_called FROM \"{name}\"" for name in wanted)
        return {name: f"{last} {called}" for name, last, called in self.query(database, union)}

    def schema(self, database: str) -> list[str]:
        indexes = self.query(database, "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'")
        constraints = self.query(
            database,
            "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated, condeferrable"
            " FROM pg_constraint WHERE connamespace = 'public'::regnamespace",
        )
        tables = self.query(
            database,
            "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns"
            " WHERE table_schema = 'public'",
        )
        return sorted(map(str, [*indexes, *constraints, *tables]))

    def _tables(self, cursor: Any) -> list[str]:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return [name for (name,) in cursor.fetchall()]

    def _administer(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self.connected(self._settings["NAME"]) as connection:
            connection.autocommit = True
            cursor = connection.execute(sql, parameters)
            return list(cursor.fetchall()) if cursor.description else []


class MariaDB(Server):
    rolls_back_counters = False
    quote = "`"

    def __init__(self, directory: Path, root: str) -> None:
        super().__init__(directory, root)
        self._settings: Any = dj_database_url.parse(root)
        self.query("", "SELECT 1")

    def url(self, database: str) -> str:
        return f"{self.root.rpartition('/')[0]}/{database}"

    def create(self, database: str) -> None:
        self.query("", f"CREATE DATABASE `{database}` CHARACTER SET utf8mb4")

    def drop(self, database: str) -> None:
        self.query("", f"DROP DATABASE IF EXISTS `{database}`")

    def copy(self, source: str, target: str) -> None:
        if not self.databases(target):
            self.create(target)
        with self.connected(target) as connection, closing(connection.cursor()) as cursor:
            cursor.execute("SET foreign_key_checks = 0")
            cursor.execute(f"SHOW TABLES FROM `{target}`")
            there = {name for (name,) in cursor.fetchall()}
            cursor.execute(f"SHOW TABLES FROM `{source}`")
            for (table,) in cursor.fetchall():
                if table in there:
                    cursor.execute(f"TRUNCATE `{table}`")  # which sets its counter back
                else:
                    cursor.execute(f"SHOW CREATE TABLE `{source}`.`{table}`")
                    cursor.execute(cursor.fetchone()[1])
                cursor.execute(f"INSERT INTO `{table}` SELECT * FROM `{source}`.`{table}`")

    def cut(self, database: str) -> int:
        ids = self.query("", "SELECT id FROM information_schema.processlist WHERE db = %s", (database,))
        for (number,) in ids:
            try:
                self.query("", f"KILL {number}")
            except Exception as error:
                if "Unknown thread id" not in str(error):  # it has ended meanwhile
                    raise
        return len(ids)

    def databases(self, prefix: str) -> list[str]:
        return [name for (name,) in self.query("", "SHOW DATABASES") if name.startswith(prefix)]

    @contextmanager
    def connected(self, database: str) -> Iterator[Any]:
        import MySQLdb

        with closing(
            MySQLdb.connect(
                host=self._settings["HOST"],
                port=self._settings["PORT"] or 3306,
                user=self._settings["USER"],
                password=self._settings["PASSWORD"] or "",
                database=database,
                charset="utf8mb4",
            )
        ) as connection:
            yield connection
            connection.commit()

    def references(self, database: str) -> dict[tuple[str, str], str]:
        rows = self.query(
            database,
            "SELECT table_name, column_name, referenced_table_name FROM information_schema.key_column_usage"
            " WHERE table_schema = %s AND referenced_table_name IS NOT NULL",
            (database,),
        )
        return {(table, column): target for table, column, target in rows}

    def sequences(self, database: str) -> dict[str, str]:
        """Say which counters do not follow the largest key: InnoDB's move on, and do not go back in a rollback."""
        counters = self.query(
            database,
            "SELECT table_name, auto_increment FROM information_schema.tables"
            " WHERE table_schema = %s AND auto_increment IS NOT NULL",
            (database,),
        )
        behind = {}
        for table, counter in counters:
            largest = self.query(database, f"SELECT MAX(id) FROM `{table}`")[0][0] or 0
            if counter <= largest:
                behind[table] = f"{counter} after {largest}"
        return behind

    def schema(self, database: str) -> list[str]:
        found = []
        with self.connected(database) as connection, closing(connection.cursor()) as cursor:
            for table in self._tables(cursor):
                cursor.execute(f"SHOW CREATE TABLE `{table}`")
                found.append(re.sub(r" AUTO_INCREMENT=\d+", "", cursor.fetchone()[1]))
        return sorted(found)

    def _tables(self, cursor: Any) -> list[str]:
        cursor.execute("SHOW TABLES")
        return [name for (name,) in cursor.fetchall()]
