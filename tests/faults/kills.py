"""Processes that are killed, cancelled, or lose their database, at moments spread over their whole run."""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Callable, Iterator
from subprocess import TimeoutExpired

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
TOO_LATE = 12
"""Attempts, each a little earlier, at a moment that came after the end."""


def kill(world: World, count: int, operations: tuple[Operation, ...] = OPERATIONS) -> Iterator[Tally]:
    """Send ``count`` signals, shared among the operations."""
    for operation, share in zip(operations, _shares(count, len(operations)), strict=True):
        course = Course.of(operation, world)
        tallies = {number: Tally(number.name, world.engine, operation.name) for number in SIGNALS}
        for number, moment in zip(itertools.cycle(SIGNALS), _moments(course, share), strict=False):
            _strike(world, course, moment, tallies[number], _sender(number), CODES[number])
        yield from (tally for tally in tallies.values() if tally.count or tally.violations)


def cut(world: World, count: int, operations: tuple[Operation, ...] = OPERATIONS) -> Iterator[Tally]:
    """End the connections to the database ``count`` times, shared among the operations."""
    if not world.server.can_cut:
        return
    for operation, share in zip(operations, _shares(count, len(operations)), strict=True):
        course = Course.of(operation, world)
        tally = Tally("connection ended", world.engine, operation.name)
        for moment in _moments(course, share):
            _strike(world, course, moment, tally, lambda process: world.server.cut(world.name) > 0, frozenset({0, 1}))
        yield tally


def _strike(
    world: World,
    course: Course,
    moment: float,
    tally: Tally,
    happen: Callable[[Process], bool],
    codes: frozenset[int],
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
            tally.add(outcome, [f"at {moment:.2f} of {course.seconds:.2f} s: {found}" for found in violations])
            return
        moment = course.prelude + (moment - course.prelude) * 0.85
    tally.violations.append("it never happened")


def _sender(number: signal.Signals) -> Callable[[Process], bool]:
    def send(process: Process) -> bool:
        process.send_signal(number)
        time.sleep(0.01)
        return True

    return send


def _moments(course: Course, count: int) -> list[float]:
    working = course.seconds - course.prelude
    return [course.prelude + working * (number + 0.5) / count for number in range(count)]


def _shares(count: int, parts: int) -> list[int]:
    return [count // parts + (part < count % parts) for part in range(parts)]
