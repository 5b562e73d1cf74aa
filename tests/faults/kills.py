"""Processes that are killed, cancelled, or lose their database, at moments spread over their whole run."""

from __future__ import annotations

import math
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from subprocess import TimeoutExpired

from tests.faults.own import Own
from tests.faults.trials import OPERATIONS, Course, Operation, Tally, trial
from tests.faults.world import World
from tests.faults.zygote import Process

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGKILL)
CODES = {
    signal.SIGKILL: frozenset({-signal.SIGKILL}),
    # Done, cancelled, or not yet at work.
    signal.SIGTERM: frozenset({0, 7, -signal.SIGTERM}),
    signal.SIGINT: frozenset({0, 7, -signal.SIGINT}),
}
FULL_SECONDS = 5
TOO_LATE = 12
"""Attempts, each a little earlier, at a moment that came after the end."""
SEQUENCE_VALUES = 32
"""PostgreSQL logs so many values of a sequence at once, and goes on behind them after a crash: SEQ_LOG_VALS."""


def kill(
    world: World, count: int, operations: tuple[Operation, ...] = OPERATIONS, until: float = math.inf
) -> list[Tally]:
    """Send ``count`` signals, shared among the operations, or as many as there is time for."""
    tallies: dict[tuple[str, str], Tally] = {}
    for course, moment, number in _plan(world, count, operations, SIGNALS, until):
        fault, operation = signal.Signals(number).name, course.operation.name
        tally = tallies.setdefault((operation, fault), Tally(fault, world.engine, operation))
        _strike(world, course, moment, tally, _sender(number), CODES[number])
    return [tallies[key] for key in sorted(tallies)]


def cut(
    world: World, count: int, operations: tuple[Operation, ...] = OPERATIONS, until: float = math.inf
) -> list[Tally]:
    """End the connections to the database and its drills' ``count`` times, shared among the operations."""
    if not world.server.can_cut:
        return []

    def happen(process: Process) -> bool:
        return sum(world.server.cut(name) for name in (world.name, *world.left_databases())) > 0

    return _disturbed("connection ended", happen, world, count, operations, until)


def restart(
    world: World, own: Own, count: int, operations: tuple[Operation, ...] = OPERATIONS, until: float = math.inf
) -> list[Tally]:
    """Kill the server of the database, every process of it, and start it again."""

    def happen(process: Process) -> bool:
        own.kill()
        own.start()
        world.skipped = SEQUENCE_VALUES if world.engine == "postgresql" else 0
        return True

    if world.engine == "sqlite":
        return []
    return _disturbed("server restarted", happen, world, count, operations, until)


def fill(
    world: World, own: Own, count: int, operations: tuple[Operation, ...] = OPERATIONS, until: float = math.inf
) -> list[Tally]:
    """Fill the disk of the database for some seconds, or until the operation has ended.

    An operation that is done, and whose server has not said that anything was full, has not noticed it.
    """

    def happen(process: Process) -> bool:
        with own.full(), suppress(TimeoutExpired):
            process.wait(FULL_SECONDS)
        return True

    if not own.is_small:
        tally = Tally("disk full: database", world.engine, "")
        tally.leave_out("nothing may be mounted")
        return [tally]
    return _disturbed(
        "disk full: database", happen, world, count, operations, until, lambda: "" if own.was_full() else ", unnoticed"
    )


def _disturbed(
    fault: str,
    happen: Callable[[Process], bool],
    world: World,
    count: int,
    operations: tuple[Operation, ...],
    until: float,
    comment: Callable[[], str] = str,
) -> list[Tally]:
    tallies: dict[str, Tally] = {}
    for course, moment, _ in _plan(world, count, operations, SIGNALS, until):
        operation = course.operation.name
        tally = tallies.setdefault(operation, Tally(fault, world.engine, operation))
        _strike(world, course, moment, tally, happen, frozenset({0, 1}), comment)
    return [tallies[key] for key in sorted(tallies)]


def _plan(
    world: World,
    count: int,
    operations: tuple[Operation, ...],
    signals: tuple[signal.Signals, ...],
    until: float,
) -> Iterator[tuple[Course, float, signal.Signals]]:
    """Spread moments over every operation's run, and go through them in no order, so that it can end at any."""
    courses = [Course.of(operation, world) for operation in operations]
    moments = [
        (course, course.seconds * (number + 0.5) / share)
        for course, share in zip(courses, _shares(count, len(courses)), strict=True)
        for number in range(share)
    ]
    plan = [(*moment, signals[number % len(signals)]) for number, moment in enumerate(moments)]
    random.Random(count).shuffle(plan)
    for one in plan:
        if time.monotonic() > until:
            return
        yield one


def _strike(
    world: World,
    course: Course,
    moment: float,
    tally: Tally,
    happen: Callable[[Process], bool],
    codes: frozenset[int],
    comment: Callable[[], str] = str,
) -> None:
    def disturb(process: Process) -> bool:
        try:
            process.wait(moment)
        except TimeoutExpired:
            return happen(process)
        return False

    for _ in range(TOO_LATE):
        result = trial(world, course, disturb, codes)
        if result is not None:
            outcome, violations = result
            said = comment()  # also of those before: the next one is asked about its own
            outcome += said if outcome == "after" else ""
            tally.add(outcome, [f"at {moment:.2f} of {course.seconds:.2f} s: {found}" for found in violations])
            return
        moment *= 0.8
    tally.violations.append("it never happened")


def _sender(number: signal.Signals) -> Callable[[Process], bool]:
    def send(process: Process) -> bool:
        process.send_signal(number)
        time.sleep(0.01)
        return True

    return send


def _shares(count: int, parts: int) -> list[int]:
    return [count // parts + (part < count % parts) for part in range(parts)]
