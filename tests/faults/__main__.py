"""Make faults happen at length and print what came of them.

    .venv/bin/python -m tests.faults --engine postgresql --kills 200

Scratch databases, ``faults_…``, are dropped at the end. Full disks and read-only places need root, or are not tried.
"""

from __future__ import annotations

import platform
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from tests.engines import ENGINES
from tests.faults.kills import cut, kill
from tests.faults.outages import outages
from tests.faults.trials import Tally
from tests.faults.world import World
from tests.faults.writers import crowd, write

HEAD = ("fault", "engine", "operation", "outcomes", "count", "violations")


def main() -> int:
    parser = ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--engine", action="append", choices=ENGINES, help="may be repeated; default: all")
    parser.add_argument("--kills", type=int, default=200, metavar="N", help="signals to each engine (%(default)s)")
    parser.add_argument("--cuts", type=int, default=40, metavar="N", help="connections to end (%(default)s)")
    parser.add_argument("--minutes", type=float, default=600, metavar="N", help="no more kills after so many")
    parser.add_argument("--writers", type=int, default=10, metavar="N", help="runs beside a writer (%(default)s)")
    parser.add_argument("--scale", type=int, default=0, metavar="N", help="rows beside the demo data (%(default)s)")
    parser.add_argument("--output", type=Path, help="Markdown file for the table")
    options = parser.parse_args()
    begun = time.monotonic()
    options.until = begun + options.minutes * 60
    engines = options.engine or list(ENGINES)
    with ThreadPoolExecutor(len(engines)) as pool:
        tallies = [tally for found in pool.map(partial(_on, options), engines) for tally in found]
    minutes = (time.monotonic() - begun) / 60
    text = _as_markdown(tallies, engines, options, minutes)
    sys.stdout.write(text)
    if options.output:
        options.output.write_text(text)
    return 1 if any(tally.violations for tally in tallies) else 0


def _on(options: Namespace, engine: str) -> list[Tally]:
    world = World(engine, scale=options.scale)
    try:
        tallies = []
        for tally in _all(world, options):
            sys.stderr.write(f"{tally.fault}, {engine}, {tally.operation}: {_outcomes(tally)}\n")
            sys.stderr.writelines(f"  VIOLATION {violation}\n" for violation in tally.violations)
            tallies.append(tally)
    finally:
        world.close()
    return tallies


def _all(world: World, options: Namespace) -> Iterator[Tally]:
    yield from crowd(world)
    yield from write(world, each=options.writers)
    yield from outages(world)
    yield from cut(world, options.cuts, until=options.until)
    yield from kill(world, options.kills, until=options.until)


def _as_markdown(tallies: list[Tally], engines: list[str], options: Namespace, minutes: float) -> str:
    violations = [f"* {tally.fault}, {tally.engine}: {one}" for tally in tallies for one in tally.violations]
    head = (
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.system()} {platform.machine()}, Python {platform.python_version()}:"
        f" {sum(tally.count for tally in tallies)} faults on {', '.join(engines)} in {minutes:.0f} minutes"
        f" (`--kills {options.kills} --cuts {options.cuts} --writers {options.writers} --scale {options.scale}"
        f" --minutes {options.minutes:g}`),"
        f" violations: {len(violations)}."
    )
    rows = [HEAD, tuple("---" for _ in HEAD), *(_row(tally) for tally in tallies)]
    return "\n".join([head, "", *(f"| {' | '.join(row)} |" for row in rows), "", *violations]).rstrip() + "\n"


def _row(tally: Tally) -> tuple[str, ...]:
    return (tally.fault, tally.engine, tally.operation, _outcomes(tally), str(tally.count), str(len(tally.violations)))


def _outcomes(tally: Tally) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(tally.outcomes.items()))


if __name__ == "__main__":
    sys.exit(main())
