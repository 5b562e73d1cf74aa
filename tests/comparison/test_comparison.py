"""What Django's fixtures change, comes back; and the table that says so is one that this code makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.comparison import document
from tests.engines import ENGINES
from tests.systems import Engine, System

DOCUMENT = Path(__file__).parent.parent.parent / "docs/fidelity.md"


@pytest.fixture(scope="module", params=ENGINES)
def system(
    request: pytest.FixtureRequest, engines: Callable[[str], Engine], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    engine = engines(request.param)
    configuration = engine.fresh(document.AWKWARD)
    yield System(engine.name, configuration, tmp_path_factory.mktemp("cases"), (document.AWKWARD,))
    engine.drop(configuration["NAME"])


def test_what_fixtures_change_comes_back(system: System) -> None:
    with system.active(), document.saving_only("awkward.", "contenttypes."):
        from tests.awkward import rows
        from tests.comparison.cases import CASES

        rows.make_unmanaged_table()
        outcomes = {
            case.name: document.outcome_of_ours(system, case) for case in CASES if system.engine in case.engines
        }
    assert set(outcomes.values()) == {document.KEPT}, outcomes


@pytest.mark.parametrize("system", ["sqlite"], indirect=True)
def test_the_table_is_what_the_commands_do(system: System) -> None:
    text = DOCUMENT.read_text()
    with system.active(), document.saving_only("awkward.", "contenttypes."):
        from tests.awkward import rows
        from tests.comparison.cases import CASES

        rows.make_unmanaged_table()
        for case in CASES[:4]:
            outcomes = [document.outcome_of_fixture(system, case, style) for style in document.STYLES.values()]
            assert f"| {case.name} | {' | '.join(outcomes)} | kept |" in text
        assert all(f"| {case.name} |" in text for case in CASES)
    kinds = document._cycle(system, system, None)
    assert set(kinds.values()) == {document.KEPT}, kinds
    assert all(f"| {kind} |" in text for kind in kinds)
    assert document.CHANGED not in text.split("## From every engine on every engine")[1]
