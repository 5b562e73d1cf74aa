from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings

from tests.engines import ENGINES
from tests.systems import Engine, System, Unreachable

# Whoever is started in the background ignores Ctrl-C, and so would the processes that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("short", max_examples=24, deadline=None)
settings.register_profile("long", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: object) -> Iterator[Callable[[str], Engine]]:
    """Give an engine by name. One that cannot be reached skips the test, or is an error where CI is set."""
    made: dict[str, Engine | Unreachable] = {}

    def engine(name: str) -> Engine:
        if name not in made:
            try:
                made[name] = Engine(name, tmp_path_factory.mktemp(name))
            except Unreachable as error:
                made[name] = error
        found = made[name]
        if isinstance(found, Unreachable):
            if os.environ.get("CI") == "true":
                pytest.fail(f"engine not reachable: {found}")
            pytest.skip(f"ENGINE NOT REACHABLE: {found}")
        return found

    with django_db_blocker.unblock():
        yield engine
        for one in made.values():
            if isinstance(one, Engine):
                one.close()


@pytest.fixture
def new_system(
    engines: Callable[[str], Engine], tmp_path: Path, django_db_blocker: object
) -> Iterator[Callable[..., System]]:
    """Make systems on engines by name. Each is migrated, holds the baseline, and is gone after the test."""
    with django_db_blocker.unblock(), ExitStack() as stack:
        count = 0

        def system(name: str, *apps: str, after: tuple[str, ...] = ()) -> System:
            nonlocal count
            count += 1
            engine, directory = engines(name), tmp_path / f"system-{count}"
            made = engine.after(after, directory) if after else System(name, engine.fresh(*apps), directory, apps)
            stack.callback(engine.drop, made.configuration["NAME"])
            return made

        yield system


@pytest.fixture(params=ENGINES)
def system(request: pytest.FixtureRequest, new_system: Callable[[str], System]) -> Iterator[System]:
    """A system on each engine in turn, active during the test."""
    with new_system(request.param).active() as active:
        yield active
