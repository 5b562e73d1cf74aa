"""One operation that something happens to, and whether what is left of it is as before or as after."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from subprocess import TimeoutExpired

from tests.faults.world import EMPTY, FULL, NEVER, Ended, State, World, broken
from tests.faults.zygote import Process


@dataclass(frozen=True)
class Operation:
    """What is disturbed: a command, the state it starts from, and the name that its report has."""

    name: str
    report: str
    start: str
    command: tuple[str, ...]

    def arguments(self, world: World) -> list[str]:
        return [str(world.package) if word == "PACKAGE" else word for word in self.command]


OPERATIONS = (
    Operation("create_backup", "create", FULL, ("create_backup",)),
    Operation("restore_backup merge", "restore", EMPTY, ("restore_backup", "PACKAGE", "--no-input")),
    Operation(
        "restore_backup replace", "restore", FULL, ("restore_backup", "PACKAGE", "--mode", "replace", "--no-input")
    ),
    Operation("reinit_system", "reinit", FULL, ("reinit_system", "--no-input")),
    Operation("recovery_drill", "drill", FULL, ("recovery_drill", "PACKAGE")),
)


IGNORED = re.compile(r"^Exception ignored in.*\nTraceback.*\n(?:[ ].*\n)+.*$", re.MULTILINE)
"""What Python says of a destructor of a library's that an interrupt has met: nobody sees more of it than that."""
NOT_TRIED = "not tried"


@dataclass
class Tally:
    """What came of one fault in one operation on one engine."""

    fault: str
    engine: str
    operation: str
    outcomes: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        return sum(count for outcome, count in self.outcomes.items() if not outcome.startswith(NOT_TRIED))

    def leave_out(self, reason: str) -> None:
        """Say aloud why this has not been made to happen."""
        self.outcomes[f"{NOT_TRIED}: {reason}"] += 1

    def add(self, outcome: str, violations: list[str]) -> None:
        self.outcomes[outcome] += 1
        self.violations += violations


@dataclass(frozen=True)
class Course:
    """An operation that nothing happens to: how it begins, how it ends, and how many seconds its work takes."""

    operation: Operation
    before: State
    after: State
    seconds: float

    @classmethod
    def of(cls, operation: Operation, world: World) -> Course:
        """Let it happen, once for a system, but twice: at first something may still have to be read from the disk."""
        if known := _courses.get((world.name, operation.name)):
            return known
        world.reset(operation.start)
        before = world.state()
        seconds = _seconds(world, *operation.arguments(world))
        world.reset(operation.start)
        seconds = max(seconds, _seconds(world, *operation.arguments(world)))  # a moment after the end is tried earlier
        after = world.state()
        if operation.name in {"create_backup", "recovery_drill"} and (found := before.differences(after)):
            raise RuntimeError(f"{operation.name} changes the system: {found}")
        course = _courses[world.name, operation.name] = cls(operation, before, after, seconds)
        return course


_courses: dict[tuple[str, str], Course] = {}

Disturb = Callable[[Process], bool]


def trial(world: World, course: Course, disturb: Disturb, codes: frozenset[int]) -> tuple[str, list[str]] | None:
    """Disturb an operation; return whether the system is as ``before`` or ``after``, and what is wrong.

    ``codes`` are the exit codes that it may have. None where it had ended before anything could happen to it.
    """
    operation = course.operation
    world.reset(operation.start)
    known = len(world.reports())
    process = world.start(*operation.arguments(world))
    happened = disturb(process)
    ended = world.end(process)
    if not happened or (ended.code == 0 and 0 not in codes):
        return None
    violations = [_unfinished(package) for package in world.finished() if broken(package)]
    if ended.code not in codes:
        violations.append(f"it ended with {ended.code}: {ended.err[-400:]}")
    packages = len(world.finished("backup-"))
    following = operation.arguments(world) if operation.report == "drill" else ["create_backup"]
    violations += _succeeds(world, following, "the next command")
    outcome = _outcome(world, course, packages, known)
    violations += _violations(world, course, ended, outcome, known)
    violations += _succeeds(world, operation.arguments(world), "the next attempt")
    if course.after.differences(world.state()) and not _is_numbered_anew(world, course):
        violations.append(f"after the next attempt: {course.after.differences(world.state())}")
    violations += _succeeds(world, ["verify_audit_trail"], "the audit trail")
    if litter := world.litter():
        violations.append(f"left after the next attempt: {litter}")
    violations += [_unfinished(package) for package in world.finished() if broken(package)]
    return outcome, [f"{violation} [exit {ended.code}, {outcome}]" for violation in violations]


def _seconds(world: World, *command: str) -> float:
    """Return the time until a command prints its report: the interpreter's end is no part of its work."""
    begun = time.monotonic()
    process = world.start(*command)
    seconds = 0.0
    while not seconds:
        try:
            process.wait(0.002)
        except TimeoutExpired:
            if not process.out.stat().st_size:
                continue
        seconds = time.monotonic() - begun
    ended = world.end(process)
    if ended.code:
        raise RuntimeError(f"{' '.join(command)} ended with {ended.code}: {ended.err or ended.out}")
    return seconds


def _outcome(world: World, course: Course, packages: int, known: int) -> str:
    if course.operation.report == "create":
        return "after" if packages else "before"
    if course.operation.report == "drill":
        reports = world.reports()[known:-1]  # the last is that of the next command
        return "after" if any(verdict == "proved" for _, _, verdict, _ in reports) else "before"
    state = world.state()
    if not course.before.differences(state):
        return "before"
    if not course.after.differences(state) or _is_numbered_anew(world, course):
        return "after"
    return "between"


def _is_numbered_anew(world: World, course: Course) -> bool:
    """Whether a system is as after the operation but for automatic keys, which not every engine gives out again."""
    anew = course.operation.report == "reinit" and not world.server.rolls_back_counters
    return anew and not world.without_keys(course.after).differences(world.without_keys(world.state()))


def _violations(world: World, course: Course, ended: Ended, outcome: str, known: int) -> list[str]:
    found = []
    if outcome == "between":
        state = world.state()
        found.append(
            f"neither before ({course.before.differences(state)}) nor after ({course.after.differences(state)})"
        )
    if course.operation.report in {"create", "drill"} and (changed := course.before.differences(world.state())):
        found.append(f"the live system has changed: {changed}")
    if ended.code == 0 and outcome != "after":
        found.append("it said that it was done")
    if ended.code == NEVER or ("Traceback" in IGNORED.sub("", ended.err) and ended.code > 0):
        found.append(f"it ended badly: {ended.err[-600:]}")
    if litter := world.litter():
        found.append(f"left after the next command: {litter}")
    reports = world.reports()
    if any(state == "running" for _, state, _, _ in reports):
        found.append(f"reports still running: {reports}")
    mine = reports[known] if len(reports) > known + 1 else None  # beside that of the next command
    if course.operation.report in {"restore", "reinit"} and (mine is not None and mine[3]) != (outcome == "after"):
        found.append(f"the report says otherwise: {mine}")
    if ended.code == -9 and mine is not None and outcome != "after" and mine[1] != "interrupted":
        found.append(f"the report is not marked interrupted: {mine}")
    return found


def _succeeds(world: World, command: list[str], what: str) -> list[str]:
    ended = world.run(*command)
    return [f"{what} ended with {ended.code}: {(ended.err or ended.out)[-400:]}"] if ended.code else []


def _unfinished(package: object) -> str:
    return f"looks like a finished package: {package}"
