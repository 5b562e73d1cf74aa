"""Tables are loaded by single statements that take rows as they are made, and by batches where one is refused."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, connection

from backups import databases
from backups.package import reader
from backups.records.parsing import Lines, Parsed, Parser
from backups.services import load
from documents.models import Document
from tests import oracle
from tests.backups.conftest import TRAIL, nothing_changes
from tests.systems import System

SERVERS = ("postgresql", "mariadb")
ENOUGH = 100_000
"""Rows that fit into no buffer between here and a server."""


@pytest.fixture(params=SERVERS)
def database(request: pytest.FixtureRequest, new_system: Callable[..., System]) -> Iterator[Any]:
    """A database with an empty table of names and numbers, no two of which may be equal."""
    with new_system(request.param).active():
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE loaded (id INT PRIMARY KEY, name VARCHAR(20) NOT NULL)")
        yield databases.of("default")


@pytest.fixture(params=SERVERS)
def saved(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, new_system: Callable[..., System]
) -> Iterator[System]:
    """A system with one package, which is loaded by batches of one or two lines."""
    with new_system(request.param, after=("seed_demo", "create_backup")).active() as system:
        monkeypatch.setattr(reader, "COPY_BYTES", 300)
        monkeypatch.setattr(load, "BATCH_BYTES", 1)
        yield system


def insert(database: Any, texts: Iterator[bytes], columns: tuple[str, ...] = ("id", "name")) -> None:
    with database.savepoint():
        database.insert_text("loaded", columns, texts)


def held() -> tuple[int, int]:
    """Return how many threads and files this process has."""
    return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))


def numbered(rows: int = ENOUGH) -> Iterator[bytes]:
    return (b"%d\tname\n" % number for number in range(rows))


def count() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM loaded")
        return int(cursor.fetchone()[0])


def test_rows_come_from_many_texts(database: Any) -> None:
    before = held()
    insert(database, numbered())
    assert count() == ENOUGH
    assert held() == before


@pytest.mark.parametrize(
    "texts",
    [
        lambda: iter([b"1\ta\n", b"2\tb\n", b"1\tc\n"]),
        lambda: iter([b"1\ta\n", b"2\t\\N\n"]),
        lambda: iter([b"1\ta\n", b"nothing\tb\n"]),
        lambda: iter([b"1\ta\n", b"2\n"]),
        lambda: iter([b"1\ta\n", b"2\t" + b"x" * 21 + b"\n"]),
        lambda: (text for rows in (numbered(), numbered(1), numbered()) for text in rows),
    ],
    ids=["twice", "null", "no number", "too few", "too long", "twice, and more to come"],
)
def test_a_row_that_is_refused_takes_all_with_it(database: Any, texts: Callable[[], Iterator[bytes]]) -> None:
    before = held()
    with pytest.raises(load.REFUSALS):
        insert(database, texts())
    assert count() == 0
    assert held() == before


def test_a_statement_that_is_refused_does_not_wait_for_rows(database: Any) -> None:
    with pytest.raises(DatabaseError):
        insert(database, numbered(), ("id", "nowhere"))
    assert count() == 0


ERRORS = LookupError, KeyboardInterrupt, BrokenPipeError


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("rows", [0, 1, ENOUGH])
def test_what_is_raised_while_rows_are_made_is_raised(database: Any, error: type[BaseException], rows: int) -> None:
    def failing() -> Iterator[bytes]:
        yield from numbered(rows)
        raise error

    before = held()
    with pytest.raises(error):
        insert(database, failing())
    assert count() == 0
    assert held() == before


@pytest.mark.parametrize("error", ERRORS)
def test_what_is_raised_after_a_statement_has_failed_is_raised(database: Any, error: type[BaseException]) -> None:
    is_postgresql = database.connection.vendor == "postgresql"

    def failing() -> Iterator[bytes]:
        if is_postgresql:
            yield b"no number\ta\n"
        time.sleep(0.3)
        raise error

    before = held()
    with pytest.raises(error):
        insert(database, failing(), ("id", "name" if is_postgresql else "nowhere"))
    assert count() == 0
    assert held() == before


def test_what_a_trigger_refuses_is_refused(new_system: Callable[..., System]) -> None:
    with new_system("mariadb").active():
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE loaded (id INT PRIMARY KEY, name VARCHAR(20) NOT NULL)")
            cursor.execute("CREATE TABLE noted (id INT CHECK (id <> 2))")
            cursor.execute("CREATE TRIGGER note AFTER INSERT ON loaded FOR EACH ROW INSERT INTO noted VALUES (NEW.id)")
        with pytest.raises(load.REFUSALS):
            insert(databases.of("default"), numbered(5))


def test_a_connection_that_is_lost_before_leaves_nothing(database: Any, engine_kills: Callable[[], None]) -> None:
    before = held()
    engine_kills()
    with pytest.raises(DatabaseError):
        database.insert_text("loaded", ("id", "name"), numbered())
    assert held() in (before, (before[0], before[1] - 1))  # less the connection


def test_a_connection_that_is_lost_is_an_error(database: Any, engine_kills: Callable[[], None]) -> None:
    def killed() -> Iterator[bytes]:
        yield from numbered(1000)
        engine_kills()
        yield from (b"%d\tname\n" % number for number in range(1000, 10 * ENOUGH))

    with pytest.raises(DatabaseError):
        insert(database, killed())
    connection.close()
    assert count() == 0


@pytest.fixture
def engine_kills(database: Any) -> Callable[[], None]:
    with connection.cursor() as cursor:
        is_postgresql = database.connection.vendor == "postgresql"
        cursor.execute("SELECT pg_backend_pid()" if is_postgresql else "SELECT CONNECTION_ID()")
        (session,) = cursor.fetchone()

    def kill() -> None:
        other = connection.copy()
        with other.cursor() as cursor:
            cursor.execute(f"SELECT pg_terminate_backend({session})" if is_postgresql else f"KILL {session}")
        other.close()

    return kill


def test_the_row_that_a_database_refuses_is_named(saved: System) -> None:
    refused = Document.objects.order_by("pk")[3]
    saved.run("reinit_system", "--no-input", "--no-safety-backup")
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE documents_document ADD CONSTRAINT not_this CHECK (number <> '{refused.number}')")
    with nothing_changes(saved):
        result = saved.run("restore_backup", "latest", "--no-input", "--json")
    (finding,) = json.loads(result.out)["findings"]
    assert (result.code, finding["code"], finding["model"]) == (3, "row_refused", "documents.document")
    assert finding["identity"] == [refused.number]


@pytest.mark.parametrize("instead", [None, "rows"])
def test_batches_that_are_no_text_are_loaded_among_others(
    saved: System, monkeypatch: pytest.MonkeyPatch, instead: str | None
) -> None:
    wanted = oracle.rows(ignore=TRAIL)
    odd = b'"pk":%d,' % Document.objects.order_by("pk")[2].pk
    assert Document.objects.count() > 4
    saved.run("reinit_system", "--no-input", "--no-safety-backup")
    parse, engine = Parser.__call__, type(databases.of("default"))
    insert_text, statements = engine.insert_text, []

    def parsed(self: Parser, lines: Lines) -> Parsed | None:
        if self.label != "documents.document" or odd not in lines.block:
            return parse(self, lines)
        return None if instead is None else parse(replace(self, is_text=False), lines)

    def inserted(self: Any, table: str, columns: Any, texts: Any) -> None:
        statements.append(table)
        insert_text(self, table, columns, texts)

    monkeypatch.setattr(Parser, "__call__", parsed)
    monkeypatch.setattr(engine, "insert_text", inserted)
    result = saved.run("restore_backup", "latest", "--no-input")
    assert result.code == 0, result.out + result.err
    assert oracle.rows(ignore=TRAIL) == wanted
    # Those before, and those after; on MariaDB, single rows are no text.
    assert statements.count("documents_document") == 2
    assert statements.count("workflows_workflowtransition") == 1
