"""The tools that people would use in our place: each engine's own, and Django's."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from django.apps import apps
from django.db.models import Model

from tests.benchmarks.processes import Pipeline
from tests.benchmarks.scratch import Database

ITERDUMP = "import sqlite3, sys; sys.stdout.writelines(f'{s}\\n' for s in sqlite3.connect(sys.argv[1]).iterdump())"
EXECUTE = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).executescript(sys.stdin.read())"


class Peer:
    """One engine's own dump and load, into a file and from it. ``data_load`` says whether it can load data alone."""

    tools: tuple[str, ...] = ()
    dump_name = load_name = data_load_name = ""

    @property
    def missing(self) -> list[str]:
        """The programs that this machine does not have."""
        return [tool for tool in self.tools if shutil.which(tool) is None]

    def dump(self, source: Database, path: Path) -> Pipeline:
        raise NotImplementedError

    def load(self, path: Path, target: Database) -> Pipeline:
        """Load schema and data into an empty database."""
        raise NotImplementedError

    def load_data(self, path: Path, target: Database) -> Pipeline:
        """Load data into a migrated database whose tables are empty."""
        raise NotImplementedError


class PostgreSQL(Peer):
    tools = ("pg_dump", "pg_restore")
    dump_name = "pg_dump -Fc"
    load_name = "pg_restore"
    data_load_name = "pg_restore -a -1"

    def dump(self, source: Database, path: Path) -> Pipeline:
        command = ["pg_dump", "-Fc", "--file", str(path), source.name]
        return Pipeline(stages=[command], environment=self._environment(source))

    def load(self, path: Path, target: Database) -> Pipeline:
        command = ["pg_restore", "--exit-on-error", "--dbname", target.name, str(path)]
        return Pipeline(stages=[command], environment=self._environment(target))

    def load_data(self, path: Path, target: Database) -> Pipeline:
        command = ["pg_restore", "-a", "-1", "--dbname", target.name, str(path)]
        return Pipeline(stages=[command], environment=self._environment(target))

    def _environment(self, database: Database) -> dict[str, str]:
        return {
            "PGHOST": database.host,
            "PGPORT": database.port,
            "PGUSER": database.user,
            "PGPASSWORD": database.password,
        }


class SQLite(Peer):
    """The shell's ``.dump``; where there is no shell, the one in Python's standard library, which is slower."""

    tools = ("gzip",)

    def __init__(self) -> None:
        self._shell = shutil.which("sqlite3")
        self.dump_name = "sqlite3 .dump | gzip" if self._shell else "Python's sqlite3 iterdump | gzip"
        self.load_name = "gzip -d | sqlite3" if self._shell else "gzip -d | Python's sqlite3 executescript"

    def dump(self, source: Database, path: Path) -> Pipeline:
        command = [self._shell, source.name, ".dump"] if self._shell else [sys.executable, "-c", ITERDUMP, source.name]
        return Pipeline(stages=[command, ["gzip"]], stdout=path)

    def load(self, path: Path, target: Database) -> Pipeline:
        command = [self._shell, "-bail", target.name] if self._shell else [sys.executable, "-c", EXECUTE, target.name]
        return Pipeline(stages=[["gzip", "-d"], command], stdin=path)


class MariaDB(Peer):
    tools = ("mariadb-dump", "mariadb", "gzip")
    dump_name = "mariadb-dump | gzip"
    load_name = "gzip -d | mariadb"

    def dump(self, source: Database, path: Path) -> Pipeline:
        # Without --single-transaction it would lock the tables, or show several moments.
        command = ["mariadb-dump", *self._server(source), "--single-transaction", source.name]
        return Pipeline(stages=[command, ["gzip"]], environment={"MYSQL_PWD": source.password}, stdout=path)

    def load(self, path: Path, target: Database) -> Pipeline:
        command = ["mariadb", *self._server(target), target.name]
        return Pipeline(stages=[["gzip", "-d"], command], environment={"MYSQL_PWD": target.password}, stdin=path)

    def _server(self, database: Database) -> list[str]:
        return [f"--host={database.host}", f"--port={database.port}", f"--user={database.user}"]


def of(engine: str) -> Peer:
    return {"postgresql": PostgreSQL, "sqlite": SQLite, "mariadb": MariaDB}[engine]()


def make_loadable(fixture: Path) -> None:
    """Put a fixture's rows in an order that ``loaddata`` can load.

    ``dumpdata`` gives up on an order where references run in a circle (a document and its current version), and then
    writes rows before those that they must not be without.
    """
    rows = json.loads(fixture.read_bytes())
    order: dict[str, int] = {}

    def visit(model: Any, above: frozenset[type[Model]]) -> None:
        if model in above or model._meta.label_lower in order:
            return
        for field in (*model._meta.fields, *model._meta.many_to_many):
            if field.remote_field and not field.null:
                visit(field.related_model, above | {model})
        order[model._meta.label_lower] = len(order)

    for label in dict.fromkeys(row["model"] for row in rows):
        visit(apps.get_model(label), frozenset())
    rows.sort(key=lambda row: order[row["model"]])
    fixture.write_text(json.dumps(rows))
