"""Disks that are full or cannot be written, and media that are not what the rows say."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.faults.trials import OPERATIONS, Operation, Tally
from tests.faults.world import World, broken

CREATE, MERGE, REPLACE, REINIT, _ = OPERATIONS

Place = Callable[[World], AbstractContextManager[None]]


@contextmanager
def _vanished(world: World) -> Iterator[None]:
    path = _one(world)
    content = path.read_bytes()
    path.unlink()
    yield
    path.write_bytes(content)


@contextmanager
def _directory(world: World) -> Iterator[None]:
    path = _one(world)
    content = path.read_bytes()
    path.unlink()
    path.mkdir()
    yield
    path.rmdir()
    path.write_bytes(content)


@contextmanager
def _pipe(world: World) -> Iterator[None]:
    path = _one(world)
    content = path.read_bytes()
    path.unlink()
    os.mkfifo(path)
    yield
    path.unlink()
    path.write_bytes(content)


@contextmanager
def _changing(world: World) -> Iterator[None]:
    """Have a file change all the time, in place, without changing its size."""
    path = _one(world)
    content, done = path.read_bytes(), threading.Event()

    def change() -> None:
        while not done.is_set():
            for filling in (b"a", b"b"):
                path.write_bytes(filling * 2_000_000)

    thread = threading.Thread(target=change)
    thread.start()
    yield
    done.set()
    thread.join()
    path.write_bytes(content)


@contextmanager
def _very_long_name(world: World) -> Iterator[None]:
    with _named(world, f"documents/{'é' * 200}.pdf"):
        yield


@contextmanager
def _names_that_differ_by_case(world: World) -> Iterator[None]:
    path = _one(world)
    other = path.with_name(path.name.swapcase())
    other.write_bytes(b"another file")
    with _named(world, str(other.relative_to(world.media))):
        yield


@contextmanager
def _named(world: World, name: str) -> Iterator[None]:
    """Let a row name a file of another name."""
    (number,), *_ = world.server.query(world.name, "SELECT MAX(id) FROM documents_documentversion")
    sql = f"FROM documents_documentversion WHERE id = {number}"
    ((was,),) = world.server.query(world.name, f"SELECT file {sql}")
    world.server.query(world.name, f"UPDATE documents_documentversion SET file = '{name}' WHERE id = {number}")
    yield
    world.server.query(world.name, f"UPDATE documents_documentversion SET file = '{was}' WHERE id = {number}")


Fault = tuple[str, Place, tuple[Operation, ...], frozenset[int], str]
"""What happens, to which operations, the exit codes it may have, and a word that its message has."""

FAULTS: tuple[Fault, ...] = (
    (
        "disk full: packages",
        lambda world: world.on_a_small_disk(world.packages, "12k"),
        (CREATE, REPLACE, REINIT),
        frozenset({1}),
        "No space left",
    ),
    (
        "disk full: media",
        lambda world: world.on_a_small_disk(world.media, "12k"),
        (MERGE,),
        frozenset({1}),
        "No space left",
    ),
    (
        "read-only: packages",
        lambda world: world.read_only(world.packages),
        (CREATE, REPLACE, REINIT),
        frozenset({1}),
        "Read-only",
    ),
    (
        "read-only: media",
        lambda world: world.read_only(world.media),
        (MERGE, REPLACE, REINIT),
        frozenset({1}),
        "Read-only",
    ),
    ("file vanished", _vanished, (CREATE, REINIT), frozenset({3}), "do not exist"),
    ("directory for a file", _directory, (CREATE, REPLACE, REINIT), frozenset({1}), "cannot be read"),
    ("pipe for a file", _pipe, (CREATE, REPLACE, REINIT), frozenset({1}), "cannot be read"),
    ("file changing", _changing, (CREATE,), frozenset({0, 1}), ""),
    ("very long file name", _very_long_name, (CREATE,), frozenset({1}), "cannot be read"),
    ("names that differ by case", _names_that_differ_by_case, (CREATE,), frozenset({0}), ""),
)


def outages(world: World, faults: Sequence[Fault] = FAULTS) -> Iterator[Tally]:
    """Make each of the faults happen to the operations that it matters to."""
    for fault, place, operations, codes, words in faults:
        for operation in operations:
            tally = Tally(fault, world.engine, operation.name)
            try:
                tally.add(*_refused(world, operation, place, codes, words))
            except PermissionError as error:
                tally.add(f"not tried: {error}", [])
            yield tally


def _refused(
    world: World, operation: Operation, place: Place, codes: frozenset[int], words: str
) -> tuple[str, list[str]]:
    world.reset(operation.start)
    with place(world):
        before = world.state() if place is not _pipe and place is not _changing else None
        ended = world.end(world.start(*operation.arguments(world)), timeout=25)
        violations = [found for package in world.finished() if (found := broken(package))]
        if ended.code not in codes or words not in ended.err or "Traceback" in ended.err:
            violations.append(f"it ended with {ended.code}: {ended.err[-500:]}")
        if ended.code and before and (changed := before.differences(world.state())):
            violations.append(f"changed: {changed}")
        if ended.code and (litter := world.litter()):
            violations.append(f"left: {litter}")
        if ended.code and (packages := world.finished("backup-")):
            violations.append(f"there is a package: {packages}")
    again = world.run(*operation.arguments(world))
    if again.code:
        violations.append(f"the next attempt ended with {again.code}: {again.err[-400:]}")
    return "refused" if ended.code else "done", violations


def _one(world: World) -> Path:
    """Return a file that a row names."""
    ((name,),) = world.server.query(world.name, "SELECT MIN(file) FROM documents_documentversion")
    return world.media / str(name)
