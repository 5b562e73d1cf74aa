"""Whole systems for tests: a migrated database on each engine, with storages of its own, as the alias ``default``."""

from __future__ import annotations

import io
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dj_database_url
from django.conf import settings
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connections
from django.test import override_settings

from tests.engines import URLS

# Nothing here has to outlive the machine: to wait for the disk at each commit takes a third of the suite's time.
OPTIONS: dict[str, dict[str, Any]] = {
    "sqlite": {"timeout": 20, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA synchronous = OFF"},
    "postgresql": {"options": "-c synchronous_commit=off"},
    "mariadb": {
        "charset": "utf8mb4",
        "init_command": "SET sql_mode='STRICT_TRANS_TABLES'",
        "local_infile": True,
    },
}


class Unreachable(Exception):
    """An engine that this machine does not have, or whose driver is not installed."""


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


class Engine:
    """One engine with a migrated database that is made once, and handed out empty again and again."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        self._made: list[str] = []
        self._templates: dict[tuple[str, ...], dict[str, Any]] = {}
        self._systems: dict[tuple[str, ...], System] = {}
        self._base = {**dj_database_url.parse(URLS[name]), "OPTIONS": OPTIONS[name]}
        try:
            with connected(self._base), connections["default"].cursor() as cursor:
                cursor.execute("SELECT 1")
        except Exception as error:
            raise Unreachable(f"{name} at {URLS[name]}: {error}") from error

    def fresh(self, *apps: str) -> dict[str, Any]:
        """Return the configuration of a migrated database that nobody else uses, with ``apps`` besides our own."""
        return self.copy(self._template(apps))

    def after(self, commands: tuple[str, ...], directory: Path) -> System:
        """Return a system in a new directory in which commands have been run, which is done once."""
        if commands not in self._systems:
            made = System(self.name, self.fresh(), self.directory / "-".join(commands))
            with made.active():
                for command in commands:
                    assert made.run(command).code == 0
            self._systems[commands] = made
        known = self._systems[commands]
        shutil.copytree(known.directory, directory)
        return System(self.name, self.copy(known.configuration), directory)

    def copy(self, template: dict[str, Any]) -> dict[str, Any]:
        """Return the configuration of a database that is what another is, which nobody is connected to."""
        copy = self._configuration()
        if self.name == "sqlite":
            shutil.copyfile(template["NAME"], copy["NAME"])
        elif self.name == "postgresql":
            self._administer(f'CREATE DATABASE "{copy["NAME"]}" TEMPLATE "{template["NAME"]}"')
        else:
            self._administer(f"CREATE DATABASE `{copy['NAME']}` CHARACTER SET utf8mb4")
            self._copy_tables(template["NAME"], copy["NAME"])
        self._made.append(copy["NAME"])
        return copy

    def empty(self) -> dict[str, Any]:
        """Return the configuration of a database without tables."""
        made = self._configuration()
        if self.name == "postgresql":
            self._administer(f'CREATE DATABASE "{made["NAME"]}"')
        elif self.name == "mariadb":
            self._administer(f"CREATE DATABASE `{made['NAME']}` CHARACTER SET utf8mb4")
        self._made.append(made["NAME"])
        return made

    def url(self, configuration: dict[str, Any]) -> str:
        """Write a configuration as another process reads it."""
        if self.name == "sqlite":
            return f"sqlite:///{configuration['NAME']}"
        return urlsplit(URLS[self.name])._replace(path=f"/{configuration['NAME']}").geturl()

    def drop(self, name: str) -> None:
        if self.name == "sqlite":
            for path in Path(name).parent.glob(f"{Path(name).name}*"):
                path.unlink()
        elif self.name == "postgresql":
            self._administer(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        else:
            self._administer(f"DROP DATABASE IF EXISTS `{name}`")

    def close(self) -> None:
        for name in self._made:
            self.drop(name)

    def _template(self, apps: tuple[str, ...]) -> dict[str, Any]:
        if apps not in self._templates:
            template = self.empty()
            with connected(template):
                call_command("migrate", verbosity=0)
                with installed(apps):  # which have no migrations, and refer to tables that come from some
                    call_command("migrate", verbosity=0, run_syncdb=True)
            self._templates[apps] = template
        return self._templates[apps]

    def _configuration(self) -> dict[str, Any]:
        name = f"test_{uuid.uuid4().hex[:12]}"
        return {**self._base, "NAME": str(self.directory / f"{name}.sqlite3") if self.name == "sqlite" else name}

    def _administer(self, sql: str) -> None:
        with connected(self._base), connections["default"].cursor() as cursor:
            cursor.execute(sql)

    def _copy_tables(self, source: str, target: str) -> None:
        with connected({**self._base, "NAME": target}), connections["default"].cursor() as cursor:
            cursor.execute(f"SHOW TABLES FROM `{source}`")
            tables = [table for (table,) in cursor.fetchall()]
            cursor.execute("SET foreign_key_checks = 0")
            for table in tables:
                cursor.execute(f"SHOW CREATE TABLE `{source}`.`{table}`")
                cursor.execute(cursor.fetchone()[1])
                cursor.execute(f"INSERT INTO `{table}` SELECT * FROM `{source}`.`{table}`")
            cursor.execute("SET foreign_key_checks = 1")


@dataclass(frozen=True)
class System:
    """A system that stands behind the alias ``default`` while it is active."""

    engine: str
    configuration: dict[str, Any]
    directory: Path
    apps: tuple[str, ...] = ()

    @property
    def media(self) -> Path:
        return self.directory / "media"

    @property
    def packages(self) -> Path:
        return self.directory / "packages"

    @contextmanager
    def active(self) -> Iterator[System]:
        filesystem = "django.core.files.storage.FileSystemStorage"
        stored = {
            **settings.STORAGES,
            "default": {"BACKEND": filesystem, "OPTIONS": {"location": self.media}},
            "backups": {"BACKEND": filesystem, "OPTIONS": {"location": self.packages}},
        }
        with installed(self.apps), override_settings(STORAGES=stored), connected(self.configuration):
            yield self

    def run(self, command: str, *arguments: str, **options: Any) -> Result:
        """Run a management command as the shell would, and return exit code, stdout and stderr."""
        out, err = io.StringIO(), io.StringIO()
        code = 0
        try:
            with redirect_stderr(err):
                call_command(command, *arguments, stdout=out, stderr=err, **options)
        except CommandError as error:
            code = error.returncode
            err.write(str(error))
        except SystemExit as error:
            code = int(error.code or 0)
        return Result(code, out.getvalue(), err.getvalue())


@contextmanager
def installed(apps: tuple[str, ...]) -> Iterator[None]:
    """Have apps installed besides our own."""
    if apps:
        with override_settings(INSTALLED_APPS=[*settings.INSTALLED_APPS, *apps]):
            yield
    else:
        yield


@contextmanager
def connected(configuration: dict[str, Any]) -> Iterator[None]:
    """Let the alias ``default`` stand for another database."""
    original, live = connections.settings["default"], connections["default"]
    connections.settings["default"] = {**original, "TEST": original.get("TEST", {}), **configuration}
    del connections["default"]
    ContentType.objects.clear_cache()
    try:
        yield
    finally:
        with suppress(ImproperlyConfigured):  # where the driver is not installed, there is nothing to close
            connections["default"].close()
        connections.settings["default"] = original
        connections["default"] = live
        ContentType.objects.clear_cache()
