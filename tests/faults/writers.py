"""Writers at work during operations, and operations at work during operations."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE

from tests.faults.trials import OPERATIONS, Operation, Tally
from tests.faults.world import EMPTY, ROOT, World

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

NAME = "W-{:06}"
SUM = 1000
KEPT = 5
"""Documents of the writer's at a time: it deletes the one before these."""
REFUSALS = {"OperationalError", "IntegrityError"}
"""What drivers call a lock that is not had, a deadlock, and a row that has gone meanwhile."""


@dataclass(frozen=True)
class Written:
    """What there is of the writer's, by name, in the tables that it writes to, and the sum of its pair of rows."""

    types: set[str]
    groups: set[str]
    documents: set[str]
    versions: set[str]
    pair: int | None
    files: set[str]

    def violations(self) -> list[str]:
        whole = self.types
        found = [
            f"half there, in {name}: {sorted(whole ^ names)[:5]}"
            for name, names in (("groups", self.groups), ("documents", self.documents), ("versions", self.versions))
            if names != whole
        ]
        found += [f"without a file: {sorted(whole - self.files)[:5]}"] if whole - self.files else []
        return found + ([f"the pair is {self.pair} together"] if self.pair not in {None, SUM} else [])


def write(world: World, *, each: int, operations: tuple[Operation, ...] = OPERATIONS) -> Iterator[Tally]:
    """Let a process write all the time while an operation runs, ``each`` times each."""
    for operation in operations:
        tally = Tally("a writer at work", world.engine, operation.name)
        for _ in range(each):
            world.reset(operation.start)
            violations: list[str] = []
            with _writer(world) as writer:
                ended = world.end(world.start(*operation.arguments(world)))
                violations += writer.goes_on()
            if ended.code:
                violations.append(f"it ended with {ended.code}: {ended.err[-400:]}")
            violations += writer.failure() + _in_database(world).violations()
            if operation.report in {"restore", "reinit"}:
                violations += _lost(world, writer)
            if operation.report == "create":
                violations += _inconsistent(world)
            tally.add("done" if not ended.code else "refused", violations)
        yield tally


def crowd(world: World, operations: tuple[Operation, ...] = OPERATIONS) -> Iterator[Tally]:
    """Stop one operation while it runs, start each of the others, and let it go on, or kill it.

    Where it is permitted, the first and the others are on hosts of different names.
    """
    hosts = ("edms-a", "edms-b") if _may_name_hosts() else ("", "")
    for first in operations:
        tally = Tally("two at once, on two hosts" if hosts[0] else "two at once", world.engine, first.name)
        for is_killed in (False, True):
            world.reset(first.start)
            known = len(world.reports())
            process = world.start(*first.arguments(world), host=hosts[0])
            while len(world.reports()) == known and process.is_running():
                time.sleep(0.002)
            process.send_signal(signal.SIGSTOP)
            violations = []
            others = [one for one in operations if (first.report == "drill") == (one.report == "drill")]
            for second in others:
                refused = world.end(world.start(*second.arguments(world), host=hosts[1]))
                where = f" on {hosts[0] or socket.gethostname()}"
                if refused.code != 6 or not re.search(rf"{first.report} since 20.* UTC by .*{where}", refused.err):
                    violations.append(f"{second.name} ended with {refused.code}: {refused.err[-400:]}")
            if is_killed:
                process.send_signal(signal.SIGKILL)
                process.wait()
                ended = world.run(*others[0].arguments(world), host=hosts[1])
            else:
                process.send_signal(signal.SIGCONT)
                ended = world.end(process)
            if ended.code:
                violations.append(f"the one that may run ended with {ended.code}: {ended.err[-400:]}")
            tally.add("a dead one stops nobody" if is_killed else "one runs", violations)
        yield tally


def _may_name_hosts() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "--uts", "true"], capture_output=True, check=False).returncode == 0


class Writer:
    """A process that adds, edits and deletes documents until it is told to end."""

    def __init__(self, world: World) -> None:
        self._log, self._errors = world.directory / "written", world.directory / "writer.err"
        self._log.touch()
        with self._log.open("w") as out, self._errors.open("w") as err:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.faults.writers"),
                    *(world.engine, str(world.server.directory), world.server.root, world.name, str(world.media)),
                ],
                cwd=ROOT,
                stdin=PIPE,
                stdout=out,
                stderr=err,
            )

    def committed(self) -> tuple[set[str], set[str]]:
        """Return the names that it has added, and those that it has deleted."""
        words = self._log.read_text().split()
        return {word for word in words if word[0] != "-"}, {word[1:] for word in words if word[0] == "-"}

    def goes_on(self) -> list[str]:
        """Wait until it has added something more. Nobody may keep it waiting for ever."""
        before, deadline = len(self.committed()[0]), time.monotonic() + 20
        while len(self.committed()[0]) < before + 2:
            if time.monotonic() > deadline or self._process.poll() is not None:
                return ["the writer cannot go on"]
            time.sleep(0.01)
        return []

    def end(self) -> None:
        self._process.communicate()  # closes what it reads, at which it ends

    def failure(self) -> list[str]:
        return [f"the writer failed: {self._errors.read_text()[-400:]}"] if self._process.returncode else []


@contextmanager
def _writer(world: World) -> Iterator[Writer]:
    writer = Writer(world)
    try:
        writer.goes_on()
        yield writer
    finally:
        writer.end()


def _in_database(world: World) -> Written:
    def named(sql: str) -> set[str]:
        return {str(name) for (name,) in world.server.query(world.name, sql)}

    ((pair,),) = world.server.query(
        world.name, "SELECT SUM(review_months) FROM documents_documenttype WHERE code LIKE 'FAULTS-%'"
    )
    return Written(
        types=named("SELECT code FROM documents_documenttype WHERE code LIKE 'W-%'"),
        groups=named("SELECT name FROM auth_group WHERE name LIKE 'W-%'"),
        documents=named("SELECT number FROM documents_document WHERE number LIKE 'W-%'"),
        versions=named(
            "SELECT number FROM documents_document JOIN documents_documentversion"
            " ON document_id = documents_document.id WHERE number LIKE 'W-%'"
        ),
        pair=None if pair is None else int(pair),
        files={path.stem for path in (world.media / "documents").glob("W-*")},
    )


def _in_package(package: Path) -> Written:
    with zipfile.ZipFile(package) as archive:

        def values(label: str, field: str) -> list[str]:
            chunks = [name for name in archive.namelist() if name.startswith(f"data/{label}/")]
            lines = [line for name in chunks for line in zstd.decompress(archive.read(name)).splitlines()]
            return [str(json.loads(line)["fields"][field]) for line in lines]

        def named(label: str, field: str) -> set[str]:
            return set(re.findall(r"W-\d{6}", " ".join(values(label, field))))

        pairs = zip(
            values("documents.documenttype", "code"), values("documents.documenttype", "review_months"), strict=True
        )
        pair = [int(months) for code, months in pairs if code.startswith("FAULTS-")]
        index = zstd.decompress(archive.read("files.jsonl.zst")) if "files.jsonl.zst" in archive.namelist() else b""
        stored = [json.loads(line) for line in index.splitlines()]
        return Written(
            types=named("documents.documenttype", "code"),
            groups=named("auth.group", "name"),
            documents=named("documents.document", "number"),
            versions=named("documents.documentversion", "document"),
            pair=sum(pair) if pair else None,
            files={Path(one["name"]).stem for one in stored if one["sha256"]},
        )


def _lost(world: World, writer: Writer) -> list[str]:
    added, deleted = writer.committed()
    there = _in_database(world).types
    violations = []
    for package in world.finished("safety-"):
        found = _in_package(package)
        violations += found.violations()
        there |= found.types
    lost = added - deleted - there
    return violations + ([f"lost: {sorted(lost)[:5]}"] if lost else [])


def _inconsistent(world: World) -> list[str]:
    """Restore the package elsewhere, and see whether it was one moment."""
    (package,) = world.finished("backup-")
    kept = package.rename(world.directory / package.name)
    try:
        world.reset(EMPTY)
        world.must("restore_backup", str(kept), "--no-input")
        found = _in_database(world)
        return found.violations() + ([] if found.types else ["the writer is not in the package"])
    finally:
        kept.unlink()


def _write(engine: str, directory: str, root: str, database: str, media: str) -> None:
    """Commit transactions that keep the sums, and name each after its commit, until nobody writes to stdin."""
    import select

    from tests.faults.servers import server

    own = server(engine, Path(directory), root)
    place = Path(media, "documents")
    number, kept = 0, deque[str]()
    while not select.select([sys.stdin], [], [], 0)[0]:
        number += 1
        name, moved = NAME.format(number), number % 7 - 3
        gone = kept[0] if len(kept) >= KEPT else ""
        statements = [
            *_moving("FAULTS-A", moved),
            *_moving("FAULTS-B", -moved),
            *_adding(name),
            *_editing(kept[-1] if kept else name),
            *(_deleting(gone) if gone else []),
        ]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{name}.txt").write_text(name)  # which a row names once it is there, as Django does it
        try:
            with own.connected(database) as connection:
                cursor = connection.cursor()
                for sql in statements:
                    cursor.execute(sql)
        except Exception as error:
            if REFUSALS.isdisjoint(kind.__name__ for kind in type(error).__mro__):
                raise
            continue  # what the engine refuses must not be there
        print(name, f"-{gone}" if gone else "", flush=True)  # noqa: T201
        kept.append(name)
        if gone:
            kept.popleft()
        time.sleep(0.005)


def _moving(code: str, months: int) -> list[str]:
    return [f"UPDATE documents_documenttype SET review_months = review_months + {months} WHERE code = '{code}'"]


def _adding(name: str) -> list[str]:
    kind = f"(SELECT id FROM documents_documenttype WHERE code = '{name}')"
    document = f"(SELECT id FROM documents_document WHERE number = '{name}')"
    author, now = "(SELECT MIN(id) FROM core_user)", "'2026-01-02 03:04:05'"
    return [
        f"INSERT INTO auth_group (name) VALUES ('{name}')",
        (
            "INSERT INTO documents_documenttype (code, name, description, review_months)"
            f" VALUES ('{name}', 'written', '', 1)"
        ),
        (
            "INSERT INTO documents_document"
            " (number, title, document_type_id, status, author_id, metadata, created, modified)"
            f" VALUES ('{name}', 'written', {kind}, 'draft', {author}, '{{}}', {now}, {now})"
        ),
        (
            "INSERT INTO documents_documentversion"
            " (document_id, major, minor, file, size, sha256, change_summary, author_id, created)"
            f" VALUES ({document}, 1, 0, 'documents/{name}.txt', 8, '', '', {author}, {now})"
        ),
    ]


def _editing(name: str) -> list[str]:
    return [f"UPDATE documents_document SET title = 'edited' WHERE number = '{name}'"]


def _deleting(name: str) -> list[str]:
    """Delete the rows; their file stays, as with Django: a reader of an older moment may still want it."""
    return [
        (
            "DELETE FROM documents_documentversion"
            f" WHERE document_id IN (SELECT id FROM documents_document WHERE number = '{name}')"
        ),
        f"DELETE FROM documents_document WHERE number = '{name}'",
        f"DELETE FROM documents_documenttype WHERE code = '{name}'",
        f"DELETE FROM auth_group WHERE name = '{name}'",
    ]


if __name__ == "__main__":
    _write(*sys.argv[1:])
