"""A sample of the faults that ``python -m tests.faults`` makes at length: some of each, on every engine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import pytest

from tests.engines import ENGINES
from tests.faults import kills, outages, writers
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


def without_violations(tallies: Iterable[Tally]) -> list[Tally]:
    made = list(tallies)
    assert [violation for tally in made for violation in tally.violations] == []
    return made


def test_a_killed_operation_leaves_the_system_as_before_or_as_after(world: World) -> None:
    assert sum(tally.count for tally in without_violations(kills.kill(world, 5))) == 5


def test_an_operation_that_loses_its_database_leaves_it_as_before_or_as_after(world: World) -> None:
    without_violations(kills.cut(world, 2, (REPLACE, REINIT)))


def test_writers_lose_nothing_and_packages_are_one_moment(world: World) -> None:
    without_violations(writers.write(world, each=1, operations=(CREATE, REPLACE)))


def test_of_two_operations_one_runs_and_the_other_says_which(world: World) -> None:
    without_violations(writers.crowd(world, (REPLACE, REINIT)))


def test_a_pipe_in_a_files_place_is_refused(world: World) -> None:
    fault, place, _, *expected = next(fault for fault in outages.FAULTS if fault[0] == "pipe for a file")
    without_violations(outages.outages(world, [(fault, place, (CREATE,), *expected)]))
