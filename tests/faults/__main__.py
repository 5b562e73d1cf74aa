"""Make faults happen at length and print what came of them.

    .venv/bin/python -m tests.faults --engine postgresql --kills 200

PostgreSQL and MariaDB are started for it, on ports and disks of their own. Full disks, read-only places and hosts of
other names need root, or are not tried.
"""

from __future__ import annotations

import platform
import signal
import subprocess
import sys
import time
import traceback
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from tests.engines import ENGINES
from tests.faults.kills import cut, fill, kill, restart
from tests.faults.outages import clock, outages, taken
from tests.faults.own import Own, own_world
from tests.faults.trials import Tally
from tests.faults.world import World
from tests.faults.writers import crowd, write

PREFACE = """\
# Reliability

Every failure has to end in one of two states: done and proved, or unchanged and explained. This page is what

    .venv/bin/python -m tests.faults --output docs/reliability.md

has seen: it makes failures happen to real processes on real databases, and looks at what is left with the databases'
own drivers, not with the engine: rows, sequences, indexes, constraints, and the hash of every media file. Of the audit
trail, which grows with every attempt, what was there before is compared, and the whole of it verified.

* **SIGKILL, SIGTERM, SIGINT** come at moments spread over an operation's whole work; **connection ended** is the
  server ending the connections of a process that works. Afterwards a next command runs. Then the system has to be
  exactly as before or as after; every file with a package's name has to be a sound package; nothing temporary may be
  left, neither file nor scratch database; the report has to say what became of the operation, *interrupted* where it
  was killed; the next attempt has to succeed, and the audit trail to verify. On every eighth table a second process
  works, and every table is loaded in bulk, without its indexes where the engine allows that, as large ones are. For
  `create_backup` and `recovery_drill`, which change nothing, *before* and *after* say whether they were done.
* **A writer at work** commits transactions that each keep a sum, add a document with a version, its file, a type and a
  group, edit a document, and delete an older one with all that belongs to it. A package that is made meanwhile,
  restored elsewhere, has to show one moment; what a restore or a re-initialisation has removed has to be in its safety
  backup; the writer may be refused by a lock, and has to go on afterwards.
* **Two at once**: one is stopped in the middle, the others, on a host of another name, have to exit with 6 and say
  which one runs, since when and where. Then it goes on; or it is killed, and another one has to run. Drills exclude
  each other alone: they have a scratch database, and may run beside any other operation.
* **Server restarted**: every process of the database's server is killed at moments spread over the operation, and
  started again. **Disk full: database** fills the disk that the server keeps everything on, for five seconds or until
  the operation has ended, with 5,000 rows; a server that this kills is started again. Then the same has to hold as
  after a kill. *Unnoticed* is one that was done while its server never said that there was no room.
* **Clock set back** by three days since the last backup: operations work, an undo brings back the moment before, the
  audit trail verifies, and `latest` is refused until the clock is right.
* **Disks, files and names**: the operation is refused with a message, nothing has changed, nothing is left, and it
  works as soon as the fault is mended. Names that are as long as can be, or different only by case, come back;
  on a file system that takes these for one (tried by hand, on NTFS), the restore is rolled back and names the file.

InnoDB's counters for automatic keys do not go back in a rollback; on MariaDB they only have to be beyond the largest
key. A host that vanishes without a word holds its lock until the server's TCP keepalive notices that: on PostgreSQL two
minutes, because the lock's connection asks for it; on MariaDB what its system says, two hours by default. No fault here
waits for it. The clock is Django's, in the process that runs the command; the servers' own keep going.

## The last run
"""

AFTERWORD = """
## What it has found

A cancelled operation on MariaDB ended as a database failure; a pipe in a media file's place was waited for without
end; a restore gave up in a deadlock with a writer; a restore that replaced files alone took no safety backup; and
PostgreSQL finished making a scratch database for a drill that had been killed, after the next drill had looked for
leftovers; the safety backup of an operation that was killed stayed for ever; on a MariaDB server whose default is
latin1 a drill could not hold the rows; an undo was refused where audit events referred to users that it removes, and it
left the files that the restore had made; with the clock set back, an undo took an older safety backup; a stray file
whose name is not UTF-8 stopped every backup; what a driver says of a statement that Ctrl-C has interrupted was called
a failure of the database; and Ctrl-C when all was done left the note that says whose safety backup it is. All are
mended. A crash may leave sequences of PostgreSQL up to 32 too high, because it logs so many values at once.
"""

FILL_ROWS = 5000
"""Rows beside the demo data that a database has to find room for when its disk is full."""
HEAD = ("fault", "engine", "operation", "outcomes", "count", "violations")


def main() -> int:
    parser = ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--engine", action="append", choices=ENGINES, help="may be repeated; default: all")
    parser.add_argument("--kills", type=int, default=200, metavar="N", help="signals to each engine (%(default)s)")
    parser.add_argument("--cuts", type=int, default=40, metavar="N", help="connections to end (%(default)s)")
    parser.add_argument("--restarts", type=int, default=25, metavar="N", help="servers to kill (%(default)s)")
    parser.add_argument("--fills", type=int, default=20, metavar="N", help="databases' disks to fill (%(default)s)")
    parser.add_argument("--minutes", type=float, default=600, metavar="N", help="no more kills after so many")
    parser.add_argument("--writers", type=int, default=10, metavar="N", help="runs beside a writer (%(default)s)")
    parser.add_argument("--scale", type=int, default=0, metavar="N", help="rows beside the demo data (%(default)s)")
    parser.add_argument("--output", type=Path, help="Markdown file for the table")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which whoever is started in the background ignores
    begun = time.monotonic()
    options.until = begun + options.minutes * 60
    engines = options.engine or list(ENGINES)
    with ThreadPoolExecutor(len(engines)) as pool:
        tallies = [tally for found in pool.map(partial(_on, options), engines) for tally in found]
    minutes = (time.monotonic() - begun) / 60
    text = _as_markdown(tallies, engines, options, minutes)
    sys.stdout.write(text)
    if options.output:
        options.output.write_text(f"{PREFACE}\n{text}{AFTERWORD}")
    return 1 if any(tally.violations for tally in tallies) else 0


def _on(options: Namespace, engine: str) -> list[Tally]:
    tallies = []
    try:
        with own_world(engine, scale=options.scale) as (world, own):
            for tally in _all(world, own, options):
                _tell(tally)
                tallies.append(tally)
        with own_world(engine, scale=max(options.scale, FILL_ROWS)) as (world, own):
            for tally in fill(world, own, options.fills, until=options.until):
                _tell(tally)
                tallies.append(tally)
    except Exception:  # noqa: BLE001  what has been seen until then is told all the same
        tallies.append(Tally("these faults themselves", engine, "", violations=[traceback.format_exc()]))
        _tell(tallies[-1])
    return tallies


def _tell(tally: Tally) -> None:
    sys.stderr.write(f"{tally.fault}, {tally.engine}, {tally.operation}: {_outcomes(tally)}\n")
    sys.stderr.writelines(f"  VIOLATION {violation}\n" for violation in tally.violations)


def _all(world: World, own: Own, options: Namespace) -> Iterator[Tally]:
    yield from crowd(world)
    yield from write(world, each=options.writers)
    yield from outages(world)
    yield from taken(world)
    yield from clock(world)
    yield from cut(world, options.cuts, until=options.until)
    yield from restart(world, own, options.restarts, until=options.until)
    yield from kill(world, options.kills, until=options.until)


def _as_markdown(tallies: list[Tally], engines: list[str], options: Namespace, minutes: float) -> str:
    violations = [f"* {tally.fault}, {tally.engine}: {one}" for tally in tallies for one in tally.violations]
    head = (
        f"{datetime.now(UTC):%Y-%m-%d}, commit {_commit()}, {platform.system()} {platform.machine()},"
        f" Python {platform.python_version()}:"
        f" {sum(tally.count for tally in tallies)} faults on {', '.join(engines)} in {minutes:.0f} minutes"
        f" (`--kills {options.kills} --cuts {options.cuts} --restarts {options.restarts} --fills {options.fills}"
        f" --writers {options.writers} --scale {options.scale} --minutes {options.minutes:g}`),"
        f" violations: {len(violations)}."
    )
    rows = [HEAD, tuple("---" for _ in HEAD), *(_row(tally) for tally in tallies)]
    return "\n".join([head, "", *(f"| {' | '.join(row)} |" for row in rows), "", *violations]).rstrip() + "\n"


def _commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _row(tally: Tally) -> tuple[str, ...]:
    return (tally.fault, tally.engine, tally.operation, _outcomes(tally), str(tally.count), str(len(tally.violations)))


def _outcomes(tally: Tally) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(tally.outcomes.items()))


if __name__ == "__main__":
    sys.exit(main())
