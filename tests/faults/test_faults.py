"""A sample of the faults that ``python -m tests.faults`` makes at length: some of each, on every engine."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress

import pytest

from tests.engines import ENGINES
from tests.faults import kills, outages, writers
from tests.faults.own import Own, own_world
from tests.faults.trials import OPERATIONS, Tally
from tests.faults.world import World

CREATE, _, REPLACE, REINIT, _ = OPERATIONS


@pytest.fixture(scope="module", params=ENGINES)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    try:
        world = World(request.param)
    except Exception as error:  # noqa: BLE001  whatever a driver says of a server that is not there
        if os.environ.get("CI") == "true":
            pytest.fail(f"engine not reachable: {error}")
        pytest.skip(f"ENGINE NOT REACHABLE: {error}")
    yield world
    world.close()


@pytest.fixture(scope="module", params=ENGINES)
def own(request: pytest.FixtureRequest) -> Iterator[tuple[World, Own]]:
    try:
        made = own_world(request.param)
        world_and_server = made.__enter__()
    except (FileNotFoundError, ModuleNotFoundError) as error:  # the server, or the driver for it
        pytest.skip(f"NO SERVER OF ONE'S OWN: {error}")
    yield world_and_server
    made.__exit__(None, None, None)


def without_violations(tallies: Iterable[Tally]) -> list[Tally]:
    made = list(tallies)
    assert [violation for tally in made for violation in tally.violations] == []
    return made


def test_a_killed_operation_leaves_the_system_as_before_or_as_after(world: World) -> None:
    assert sum(tally.count for tally in without_violations(kills.kill(world, len(OPERATIONS)))) == len(OPERATIONS)


def test_an_operation_that_loses_its_database_leaves_it_as_before_or_as_after(world: World) -> None:
    without_violations(kills.cut(world, 2, (REPLACE, REINIT)))


def test_a_database_that_is_killed_or_full_is_as_before_or_as_after(own: tuple[World, Own]) -> None:
    without_violations(kills.restart(*own, 1, (REPLACE,)))
    without_violations(kills.fill(*own, 1, (REPLACE,)))


def test_writers_lose_nothing_and_packages_are_one_moment(world: World) -> None:
    without_violations(writers.write(world, each=1, operations=(CREATE, REPLACE)))


def test_of_two_operations_one_runs_and_the_other_says_which(world: World) -> None:
    without_violations(writers.crowd(world, (REPLACE, REINIT)))


@pytest.mark.parametrize("name", ["pipe for a file", "file name that is not UTF-8", "file names that differ by case"])
def test_files_that_are_none_are_refused_and_odd_names_are_kept(world: World, name: str) -> None:
    fault, place, _, *expected = next(fault for fault in outages.FAULTS if fault[0] == name)
    without_violations(outages.outages(world, [(fault, place, (CREATE,), *expected)]))


def test_an_operation_is_undone_with_the_clock_set_back(world: World) -> None:
    without_violations(outages.clock(world, (REINIT,)))


def test_an_operation_that_meets_a_writer_in_a_deadlock_locks_its_tables_again(world: World) -> None:
    if world.engine == "sqlite":
        return  # all tables have one lock: there are no deadlocks
    world.reset(REPLACE.start)
    known = len(world.reports())
    # Either may be whom the server sends back; the writer's driver says so with an error of its own.
    with suppress(Exception), world.server.connected(world.name) as connection:
        cursor = connection.cursor()
        cursor.execute("UPDATE documents_documenttype SET name = 'written' WHERE code = 'LATE'")
        process = world.start(*REPLACE.arguments(world))
        while len(world.reports()) == known:
            time.sleep(0.01)
        time.sleep(0.4)  # it has locked the groups by now, and waits for the types
        cursor.execute("INSERT INTO auth_group (name) VALUES ('W-000001')")

    ended = world.end(process)

    assert ended.code == 0, ended.err
