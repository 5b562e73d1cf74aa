from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.db.models import Model

from backups.package import passphrase
from tests import oracle
from tests.engines import ENGINES
from tests.systems import System

# The audit trail grows with each attempt, and with each re-initialisation begins anew.
TRAIL = {"core.auditevent"}


@pytest.fixture(params=ENGINES)
def told(request: pytest.FixtureRequest, new_system: Callable[..., System]) -> Iterator[System]:
    """A system on each engine in turn with the demo data, active during the test."""
    with new_system(request.param, after=("seed_demo",)).active() as active:
        yield active


@pytest.fixture(params=ENGINES)
def seeded(request: pytest.FixtureRequest, new_system: Callable[..., System]) -> Iterator[System]:
    """A system on each engine in turn with the demo data and one package of it, active during the test."""
    with new_system(request.param, after=("seed_demo", "create_backup")).active() as active:
        yield active


@pytest.fixture
def package(seeded: System) -> Path:
    (path,) = seeded.packages.glob("backup-*.zip")
    return path


@pytest.fixture
def lite(new_system: Callable[..., System]) -> Iterator[System]:
    with new_system("sqlite").active() as active:
        yield active


@pytest.fixture
def quick_passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a passphrase be no work in this process: the real factor takes a second each time, and others have it."""
    monkeypatch.setattr(passphrase, "WORK_FACTOR", 2)


@pytest.fixture
def shell(new_system: Callable[..., System]) -> Iterator[dict[str, str]]:
    """The environment of a seeded SQLite system with one package, for commands in processes of their own."""
    with new_system("sqlite", after=("seed_demo", "create_backup")).active() as system:
        yield {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "core.settings",
            "DATABASE_URL": f"sqlite:///{system.configuration['NAME']}",
            "MEDIA_ROOT": str(system.media),
            "BACKUPS_ROOT": str(system.packages),
        }


def run(environment: dict[str, str], *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "manage.py", *command], env=environment, text=True, timeout=60, **options)
    assert "Traceback" not in (done.stderr or "")
    return done


class Terminal:
    """Somebody who types one line."""

    def __init__(self, text: str) -> None:
        self._text = text

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        return self._text


@contextmanager
def nothing_changes(system: System) -> Iterator[None]:
    """Fail unless rows, keys, media and packages are afterwards what they were, but for the trail of the attempt."""
    before = state(system)
    yield
    after = state(system)
    for was, is_now in zip(before, after, strict=True):
        for name in was.keys() | is_now.keys():
            assert is_now.get(name) == was.get(name), name


def state(system: System) -> list[dict[str, Any]]:
    rows, keys = oracle.rows(ignore=TRAIL), oracle.keys()
    for label in TRAIL:
        del keys[label]
    return [rows, keys, oracle.files(system.media), oracle.files(system.packages)]


def recreate_without_constraints(model: type[Model]) -> None:
    """Have a table as somebody else may have made it."""
    table = model._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA foreign_keys = OFF")
        cursor.execute(f"CREATE TABLE copy AS SELECT * FROM {table}")
        cursor.execute(f"DROP TABLE {table}")
        cursor.execute(f"ALTER TABLE copy RENAME TO {table}")
