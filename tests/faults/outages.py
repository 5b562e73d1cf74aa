"""Disks that are full or cannot be written, and media that are not what the rows say."""

from __future__ import annotations

import os
import re
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.faults.trials import OPERATIONS, Operation, Tally
from tests.faults.world import TRAIL, World, broken

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


CHANGING = 2_000_000
"""Bytes of a file that changes."""
CHANGES = 5
"""Attempts at a backup while it does."""


@contextmanager
def _changing(world: World) -> Iterator[None]:
    """Have a file overwritten from its begin to its end all the time, with one letter and then with another."""
    path = _one(world)
    content, done = path.read_bytes(), threading.Event()

    def change() -> None:
        with path.open("r+b", buffering=0) as file:
            while not done.is_set():
                for letter in (b"a", b"b"):
                    file.seek(0)
                    file.write(letter * CHANGING)

    path.write_bytes(b"b" * CHANGING)
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


@contextmanager
def _file_for_a_directory(world: World) -> Iterator[None]:
    """Have a name that the files' directory should have taken by a file."""
    directory = _directory_of(world)
    kept = directory.rename(directory.with_name("kept")) if directory.exists() else None
    directory.write_bytes(b"taken")
    yield
    directory.unlink()
    if kept:
        kept.rename(directory)


@contextmanager
def _bytes_for_a_name(world: World) -> Iterator[None]:
    """Put a file beside the others whose name is not UTF-8; no row can name it."""
    directory = _directory_of(world)
    was_there = directory.exists()
    directory.mkdir(exist_ok=True)
    path = Path(os.fsdecode(os.fsencode(directory) + b"/not-\xff\xfe-utf8.pdf"))
    path.write_bytes(b"named by bytes")
    yield
    if path.read_bytes() != b"named by bytes":
        raise RuntimeError(f"{path!r} has changed")
    path.unlink()
    if not was_there and not any(directory.iterdir()):
        directory.rmdir()


@contextmanager
def _bytes_in_a_row(world: World) -> Iterator[None]:
    """Let a row name a file by bytes that are not UTF-8, which SQLite alone lets it."""
    with _named(world, "' || CAST(x'646f63732fff2e706466' AS TEXT) || '"):
        yield


@contextmanager
def _longest_name(world: World) -> Iterator[None]:
    """Let a row name a file by as many bytes as a file system takes."""
    path = _one(world)
    longest = path.with_name("é" * 125 + ".pdf")
    longest.write_bytes(b"a long name")
    with _named(world, str(longest.relative_to(world.media))):
        yield


Fault = tuple[str, Place, tuple[Operation, ...], frozenset[int], str]
"""What happens, to which operations, the exit codes it may have, and a word that its message has."""

FAULTS: tuple[Fault, ...] = (
    (
        "disk full: packages",
        lambda world: world.on_a_small_disk(world.packages, 3),
        (CREATE, REPLACE, REINIT),
        frozenset({1}),
        "No space left",
    ),
    (
        "disk full: media",
        lambda world: world.on_a_small_disk(world.media, 1),
        (MERGE, REPLACE),
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
    ("file for a directory", _file_for_a_directory, (MERGE, REPLACE), frozenset({1}), "cannot be read"),
    ("file name too long", _very_long_name, (CREATE,), frozenset({1}), "cannot be read"),
    ("file name as long as can be", _longest_name, (CREATE,), frozenset({0}), ""),
    ("file names that differ by case", _names_that_differ_by_case, (CREATE,), frozenset({0}), ""),
    ("file name that is not UTF-8", _bytes_for_a_name, OPERATIONS, frozenset({0}), ""),
    ("row that is not UTF-8", _bytes_in_a_row, (CREATE, REPLACE, REINIT), frozenset({1}), "UTF-8"),
)
UNREADABLE = (_pipe, _changing, _bytes_in_a_row)
"""Faults that do not let us look at the system either."""
NAMES = (_longest_name, _names_that_differ_by_case, _bytes_for_a_name)
"""Faults that go into a package and have to come out of it."""


def outages(world: World, faults: Sequence[Fault] = FAULTS) -> Iterator[Tally]:
    """Make each of the faults happen to the operations that it matters to."""
    for fault, place, operations, codes, words in faults:
        if place is _bytes_in_a_row and world.engine != "sqlite":
            continue
        for operation in operations:
            tally = Tally(fault, world.engine, operation.name)
            try:
                for _ in range(CHANGES if place is _changing else 1):
                    tally.add(*_refused(world, operation, place, codes, words))
            except PermissionError as error:
                tally.leave_out(str(error))
            yield tally


def _refused(
    world: World, operation: Operation, place: Place, codes: frozenset[int], words: str
) -> tuple[str, list[str]]:
    world.reset(operation.start)
    with place(world):
        before = None if place in UNREADABLE else world.state()
        ended = world.end(world.start(*operation.arguments(world)), timeout=25)
        violations = [found for package in world.finished() if (found := broken(package))]
        if ended.code not in codes or words not in ended.err or "Traceback" in ended.err:
            violations.append(f"it ended with {ended.code}: {ended.err[-500:]}")
        if ended.code and before and (changed := before.differences(world.state())):
            violations.append(f"changed: {changed}")
        if ended.code and (litter := world.litter()):
            violations.append(f"left: {litter}")
        packages = world.finished("backup-")
        if place is _changing and not ended.code and not _has_been_there(packages[0]):
            violations.append("the package has what the file never was")
        if ended.code and packages:
            violations.append(f"there is a package: {packages}")
        if place in NAMES and operation is CREATE and before:
            world.must("reinit_system", "--no-input")
            world.must("restore_backup", packages[0].name, "--mode", "replace", "--no-input")
            if before.media != world.state().media:
                violations.append("the files have not come back as they were")
    again = world.run(*operation.arguments(world))
    if again.code:
        violations.append(f"the next attempt ended with {again.code}: {again.err[-400:]}")
    return "refused" if ended.code else "done", violations


def _has_been_there(package: Path) -> bool:
    """Whether a package has a content that the changing file had at one moment: one letter up to a place, then one."""
    with zipfile.ZipFile(package) as archive:
        files = [archive.read(name) for name in archive.namelist() if name.startswith("files/")]
    return any(len(content) == CHANGING and re.fullmatch(b"a*b*|b*a*", content) for content in files)


def clock(world: World, operations: Sequence[Operation] = OPERATIONS) -> Iterator[Tally]:
    """Set the clock back between a backup and the operation, and undo what it did by that clock."""
    for operation in operations:
        tally = Tally("clock set back", world.engine, operation.name)
        world.reset(operation.start)
        world.must("create_backup")
        before = world.state()
        violations = []
        ended = world.run(*operation.arguments(world), clock=-3 * 86400)
        if ended.code:
            violations.append(f"it ended with {ended.code}: {ended.err[-400:]}")
        latest = world.run("inspect_backup", "latest", clock=-3 * 86400)
        if latest.code != 2 or "is from later than now" not in latest.err:
            violations.append(f"it is sure which package is the latest: {latest.out[-200:] or latest.err[-200:]}")
        if operation.report in {"restore", "reinit"}:
            world.must("restore_backup", "--undo", "--no-input", clock=-3 * 86400)
        state = world.state()
        lost = set(before.rows.pop(TRAIL)) - set(state.rows.pop(TRAIL))  # of which an undo deletes nothing
        changed = world.without_keys(before).differences(world.without_keys(state))
        if lost or (changed and before.differences(state)):
            violations.append(f"it was not undone: {changed or lost}")
        world.must("verify_audit_trail")
        tally.add("done and undone" if operation.report in {"restore", "reinit"} else "done", violations)
        yield tally


def taken(world: World) -> Iterator[Tally]:
    """Have the name taken that a package is to get."""
    tally = Tally("package name taken", world.engine, CREATE.name)
    world.reset(CREATE.start)
    place = world.packages / "taken.zip"
    place.write_bytes(b"somebody else's")
    ended = world.end(world.start("create_backup", "--output", str(place)))
    violations = []
    if ended.code != 2 or "exists" not in ended.err or place.read_bytes() != b"somebody else's":
        violations.append(f"it ended with {ended.code}: {ended.err[-400:]}")
    place.unlink()
    if litter := world.litter():
        violations.append(f"left: {litter}")
    violations += [] if world.run("create_backup", "--output", str(place)).code == 0 else ["the next attempt failed"]
    tally.add("refused", violations)
    yield tally


def _directory_of(world: World) -> Path:
    """Return the directory of the files that rows name, or named once."""
    return world.media / "documents"


def _one(world: World) -> Path:
    """Return a file that a row names."""
    ((name,),) = world.server.query(world.name, "SELECT MIN(file) FROM documents_documentversion")
    return world.media / str(name)
