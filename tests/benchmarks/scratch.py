"""Databases and systems that exist for one benchmark."""

from __future__ import annotations

import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import dj_database_url
from django.core.management.color import no_style
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import ConnectionHandler

from tests.benchmarks.processes import Pipeline, Run, run
from tests.systems import OPTIONS, URLS, Unreachable

MIGRATIONS = "django_migrations"
PURGE_SECONDS = 120
"""How long MariaDB may take to purge what was deleted: on a server that others use, it may never have purged all."""


class Server:
    """Where one engine's scratch databases are, by the same URLs as the tests'."""

    def __init__(self, engine: str, directory: Path) -> None:
        self.engine = engine
        self.directory = directory
        self._made: list[Database] = []
        if engine != "sqlite":
            self._require()

    def _require(self) -> None:
        try:
            with self.connected() as connection:
                connection.ensure_connection()
        except Exception as error:
            raise Unreachable(f"{self.engine}: {str(error).strip()}") from error

    @property
    def version(self) -> str:
        """The engine with its version, as people name it."""
        with self.connected() as connection:
            version = ".".join(map(str, connection.get_database_version()))
            return f"{connection.display_name} {version}"

    def new_database(self) -> Database:
        """Create an empty database."""
        name = f"bench_{uuid.uuid4().hex[:12]}"
        if self.engine == "sqlite":
            database = Database(self, str(self.directory / f"{name}.sqlite3"))
        else:
            database = Database(self, name)
            character_set = " CHARACTER SET utf8mb4" if self.engine == "mariadb" else ""
            self._administer(f"CREATE DATABASE {name}{character_set}")
        self._made.append(database)
        return database

    def drop(self, database: Database) -> None:
        """Drop a database, if it exists."""
        if self.engine == "sqlite":
            for path in self.directory.glob(f"{Path(database.name).name}*"):
                path.unlink()
        else:
            force = " WITH (FORCE)" if self.engine == "postgresql" else ""
            self._administer(f"DROP DATABASE IF EXISTS {database.name}{force}")
        self._made.remove(database)

    def close(self) -> None:
        """Drop every database that is left."""
        for database in list(self._made):
            self.drop(database)

    @contextmanager
    def connected(self, name: str | None = None) -> Iterator[BaseDatabaseWrapper]:
        """Connect to a database, or to the one that the server's URL names."""
        configuration: dict[str, Any] = {**dj_database_url.parse(URLS[self.engine]), "OPTIONS": OPTIONS[self.engine]}
        if name is not None:
            configuration["NAME"] = name
        connection = ConnectionHandler({"default": configuration})["default"]
        try:
            yield connection
        finally:
            connection.close()

    def _administer(self, sql: str) -> None:
        with self.connected() as connection, connection.cursor() as cursor:
            cursor.execute(sql)


@dataclass(frozen=True)
class Database:
    """One scratch database. ``name`` is a path on SQLite."""

    server: Server
    name: str

    @property
    def url(self) -> str:
        if self.server.engine == "sqlite":
            return f"sqlite:///{self.name}"
        return urlsplit(URLS[self.server.engine])._replace(path=f"/{self.name}").geturl()

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or "127.0.0.1"

    @property
    def port(self) -> str:
        return str(urlsplit(self.url).port or {"postgresql": 5432, "mariadb": 3306}[self.server.engine])

    @property
    def user(self) -> str:
        return unquote(urlsplit(self.url).username or "")

    @property
    def password(self) -> str:
        return unquote(urlsplit(self.url).password or "")

    def counts(self) -> dict[str, int]:
        """Count the rows of every table."""
        with self.server.connected(self.name) as connection, connection.cursor() as cursor:
            counts = {}
            for table in connection.introspection.table_names(cursor):
                cursor.execute(f"SELECT COUNT(*) FROM {connection.ops.quote_name(table)}")
                counts[table] = cursor.fetchone()[0]
            return counts

    def empty(self, *, keep: frozenset[str] = frozenset()) -> None:
        """Delete every row of every table but those to ``keep``, as Django's ``flush`` would."""
        with self.server.connected(self.name) as connection:
            with connection.cursor() as cursor:
                tables = [name for name in connection.introspection.table_names(cursor) if name not in keep]
            with connection.constraint_checks_disabled():
                connection.ops.execute_sql_flush(
                    connection.ops.sql_flush(no_style(), tables, reset_sequences=True, allow_cascade=True)
                )

    def settle(self) -> None:
        """Let a server do now what it would do in the background during the measurements."""
        if self.server.engine == "sqlite":
            return
        with self.server.connected(self.name) as connection, connection.cursor() as cursor:
            if self.server.engine == "postgresql":
                cursor.execute("VACUUM ANALYZE")
                return
            for _ in range(PURGE_SECONDS):
                cursor.execute("SHOW GLOBAL STATUS LIKE 'Innodb_history_list_length'")
                if int(cursor.fetchone()[1]) == 0:
                    return
                time.sleep(1)


class System:
    """A migrated database, with directories of its own, as the processes of the project see it."""

    def __init__(self, server: Server) -> None:
        self.database = server.new_database()
        self.directory = server.directory / Path(self.database.name).stem
        self.directory.mkdir()
        self.require("migrate", "--verbosity=0")

    @property
    def packages(self) -> Path:
        return self.directory / "packages"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "DJANGO_SETTINGS_MODULE": "core.settings",
            "DJANGO_SECRET_KEY": uuid.uuid4().hex * 2,
            "DATABASE_URL": self.database.url,
            "MEDIA_ROOT": str(self.directory / "media"),
            "BACKUPS_ROOT": str(self.packages),
        }

    def manage(self, *arguments: str, out: Path | None = None) -> Run:
        """Run a management command in a process; its stdout goes to ``out``."""
        command = [sys.executable, "manage.py", *arguments]
        return run(Pipeline(stages=[command], environment=self.environment, stdout=out))

    def require(self, *arguments: str) -> None:
        """Run a management command that prepares something. Raises ``RuntimeError`` where it fails."""
        if failure := self.manage(*arguments).failure:
            raise RuntimeError(f"manage.py {arguments[0]}: {failure}")

    def drop(self) -> None:
        self.database.server.drop(self.database)
        shutil.rmtree(self.directory)
