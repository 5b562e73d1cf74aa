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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE

from tests.faults.trials import OPERATIONS, Operation, Tally
from tests.faults.world import EMPTY, ROOT, World

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

NAME = "W-{:06}"
SUM = 1000


def write(world: World, *, each: int, operations: tuple[Operation, ...] = OPERATIONS) -> Iterator[Tally]:
    """Let a process write all the time while an operation runs, ``each`` times each."""
    for operation in operations:
        tally = Tally("a writer at work", world.engine, operation.name)
        for _ in range(each):
            world.reset(operation.start)
            violations: list[str] = []
            with _writer(world) as written:
                ended = world.end(world.start(*operation.arguments(world)))
            if ended.code:
                violations.append(f"it ended with {ended.code}: {ended.err[-400:]}")
            violations += _half(_in_database(world))
            if operation.report in {"restore", "reinit"}:
                violations += _lost(world, written())
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


@contextmanager
def _writer(world: World) -> Iterator[Callable[[], set[str]]]:
    """Run a writer inside; the function that is given returns, after its end, the names that it has committed."""
    log = world.directory / "written"
    with log.open("w") as out:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.faults.writers"),
                *(world.engine, str(world.server.directory), world.server.root, world.name),
            ],
            cwd=ROOT,
            stdin=PIPE,
            stdout=out,
            stderr=DEVNULL,
        )
        try:
            while log.stat().st_size < 3 * len(NAME.format(0)) and process.poll() is None:
                time.sleep(0.01)
            yield lambda: set(log.read_text().split())
        finally:
            process.communicate()  # closes what it reads, at which it ends


def _in_database(world: World) -> tuple[set[str], set[str], int | None]:
    """Return what the writer has in one table, what it has in the other, and the sum of its pair of rows."""
    codes = world.server.query(world.name, "SELECT code FROM documents_documenttype WHERE code LIKE 'W-%'")
    names = world.server.query(world.name, "SELECT name FROM auth_group WHERE name LIKE 'W-%'")
    pair = world.server.query(
        world.name, "SELECT SUM(review_months) FROM documents_documenttype WHERE code LIKE 'FAULTS-%'"
    )
    return {code for (code,) in codes}, {name for (name,) in names}, None if pair[0][0] is None else int(pair[0][0])


def _in_package(package: Path) -> tuple[set[str], set[str], int | None]:
    with zipfile.ZipFile(package) as archive:

        def fields(label: str) -> list[dict[str, object]]:
            chunks = [name for name in archive.namelist() if name.startswith(f"data/{label}/")]
            lines = [line for name in chunks for line in zstd.decompress(archive.read(name)).splitlines()]
            return [json.loads(line)["fields"] for line in lines]

        types, groups = fields("documents.documenttype"), fields("auth.group")
    codes = {str(row["code"]) for row in types if str(row["code"]).startswith("W-")}
    names = {str(row["name"]) for row in groups if str(row["name"]).startswith("W-")}
    pair = [int(str(row["review_months"])) for row in types if str(row["code"]).startswith("FAULTS-")]
    return codes, names, sum(pair) if pair else None


def _half(found: tuple[set[str], set[str], int | None]) -> list[str]:
    codes, names, pair = found
    violations = [f"half there: {sorted(codes ^ names)[:5]}"] if codes != names else []
    return violations + ([f"the pair is {pair} together"] if pair not in {None, SUM} else [])


def _lost(world: World, written: set[str]) -> list[str]:
    there = _in_database(world)[0]
    violations = []
    for package in world.finished("safety-"):
        violations += _half(found := _in_package(package))
        there |= found[0]
    return violations + ([f"lost: {sorted(written - there)[:5]}"] if written - there else [])


def _inconsistent(world: World) -> list[str]:
    """Restore the package elsewhere, and see whether it was one moment."""
    (package,) = world.finished("backup-")
    kept = package.rename(world.directory / package.name)
    try:
        world.reset(EMPTY)
        world.must("restore_backup", str(kept), "--no-input")
        found = _in_database(world)
        return _half(found) + ([] if found[0] else ["the writer is not in the package"])
    finally:
        kept.unlink()


def _write(engine: str, directory: str, root: str, database: str) -> None:
    """Commit transactions that keep the sums, and name each after its commit, until nobody writes to stdin."""
    import select

    from tests.faults.servers import server

    own = server(engine, Path(directory), root)
    number = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        number += 1
        name, moved = NAME.format(number), number % 7 - 3
        try:
            with own.connected(database) as connection:
                cursor = connection.cursor()
                for code, change in (("FAULTS-A", moved), ("FAULTS-B", -moved)):
                    cursor.execute(
                        f"UPDATE documents_documenttype SET review_months = review_months + {change}"
                        f" WHERE code = '{code}'"
                    )
                cursor.execute(f"INSERT INTO auth_group (name) VALUES ('{name}')")
                cursor.execute(
                    "INSERT INTO documents_documenttype (code, name, description, review_months)"
                    f" VALUES ('{name}', 'written', '', 1)"
                )
        except Exception:  # noqa: BLE001  the engine may refuse a writer; what it refuses must not be there
            continue
        print(name, flush=True)  # noqa: T201
        time.sleep(0.005)


if __name__ == "__main__":
    _write(*sys.argv[1:])
