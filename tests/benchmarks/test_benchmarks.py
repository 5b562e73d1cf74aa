"""The benchmark runs and says what it should. No time is asserted."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.benchmarks import figures, peers, scratch
from tests.benchmarks.benchmark import main
from tests.benchmarks.figures import Figures, Sample, exponent
from tests.benchmarks.processes import Pipeline, run
from tests.benchmarks.targets import TARGETS, Measured
from tests.engines import ENGINES
from tests.systems import Engine

MIB = 1024 * 1024


def sample(seconds: float, **values: int) -> Sample:
    return Sample(seconds=seconds, peak=values.get("peak", MIB), size=values.get("size", MIB))


def databases(engine: Engine) -> set[str]:
    """The scratch databases that a server has."""
    if engine.name == "sqlite":
        return set()
    server = scratch.Server(engine.name, engine.directory)
    sql = {"postgresql": "SELECT datname FROM pg_database", "mariadb": "SHOW DATABASES"}[engine.name]
    with server.connected() as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return {name for (name,) in cursor.fetchall() if name.startswith("bench_")}


@pytest.mark.parametrize("name", ENGINES)
def test_benchmark_verifies_and_documents_each_operation(
    name: str, engines: Callable[[str], Engine], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = engines(name)
    output = tmp_path / "docs" / "benchmarks.md"
    arguments = ["--engine", name, "--scale", "100", "--runs", "1", "--output", str(output)]
    peer = peers.of(name)
    before = databases(engine)

    code = main(arguments if peer.missing else [*arguments, "--peers"])

    printed = capsys.readouterr()
    assert (code, [line for line in printed.err.splitlines() if "exit code" in line]) == (0, [])
    text = output.read_text()
    assert printed.out == text
    assert "no figure: " not in text
    for operation in ("create_backup", "restore_backup", "validate_restore"):
        assert f"| `{operation}` | " in text
    if not peer.missing:
        for title in (peer.dump_name, peer.load_name, "dumpdata --natural-foreign", "loaddata"):
            assert f"`{title}`".replace("|", r"\|") in text
        assert text.count("not measured") == 2, "growth needs two scales, everything else is there"
    assert databases(engine) <= before


def test_databases_are_dropped_when_the_benchmark_fails(
    engines: Callable[[str], Engine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engines("postgresql")
    before = databases(engine)
    monkeypatch.setattr(scratch.System, "require", _fail)

    with pytest.raises(RuntimeError, match="migrate"):
        main(["--engine", "postgresql", "--scale", "100", "--output", str(tmp_path / "benchmarks.md")])

    assert databases(engine) == before


def _fail(system: scratch.System, *arguments: str) -> None:
    raise RuntimeError(arguments[0])


def test_no_figure_is_printed_for_rows_that_do_not_add_up(
    engines: Callable[[str], Engine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    engines("sqlite")
    count = scratch.Database.counts
    monkeypatch.setattr(scratch.Database, "counts", lambda database: {**count(database), "core_user": 99})
    output = tmp_path / "benchmarks.md"

    code = main(["--engine", "sqlite", "--scale", "100", "--runs", "1", "--output", str(output)])

    assert code == 1
    assert "| `create_backup` | no figure: core.user has 10 rows, and should have 99 |" in output.read_text()
    assert "rows/s" in capsys.readouterr().out


def test_a_run_that_fails_leaves_no_figure() -> None:
    failed = run(Pipeline(stages=[[sys.executable, "-c", "raise SystemExit('no space left')"]]))
    assert failed.failure == "exit code 1: no space left"


def test_a_pipeline_fails_where_any_of_its_processes_does(tmp_path: Path) -> None:
    echo = [sys.executable, "-c", "import sys; sys.stdout.write(sys.stdin.read())"]
    words = [sys.executable, "-c", "print('words')"]
    ran = run(Pipeline(stages=[words, echo], stdout=tmp_path / "out"))
    assert (ran.failure, (tmp_path / "out").read_text()) == ("", "words\n")
    assert run(Pipeline(stages=[[sys.executable, "-c", "raise SystemExit(3)"], echo])).codes == [3, 0]


def test_peak_memory_is_the_process_own_and_not_that_of_its_starter() -> None:
    held = bytearray(300 * MIB)
    small = run(Pipeline(stages=[[sys.executable, "-S", "-c", "pass"]]))
    large = run(Pipeline(stages=[[sys.executable, "-S", "-c", f"x = bytearray({200 * MIB})"]]))
    assert small.peak < 100 * MIB < 200 * MIB < large.peak < len(held)


def test_one_refused_run_leaves_no_median_and_no_ratio() -> None:
    found = Figures(engine="sqlite", scale=1)
    found.of(figures.CREATE).samples = {0: sample(2), 1: sample(4)}
    found.of(figures.DUMP).samples = {0: sample(1), 1: sample(1)}
    assert found.ratio(figures.CREATE, figures.DUMP) == 3
    found.of(figures.DUMP).refused = "core_user has 9 rows, and should have 10"
    assert found.median(figures.DUMP) is None
    assert found.ratio(figures.CREATE, figures.DUMP) is None


def test_ratios_are_taken_within_each_round() -> None:
    found = Figures(engine="sqlite", scale=1)
    found.of(figures.CREATE).samples = {0: sample(1), 1: sample(20), 2: sample(3)}
    found.of(figures.DUMP).samples = {0: sample(1), 1: sample(10), 2: sample(2)}
    assert found.ratio(figures.CREATE, figures.DUMP) == 1.5


@pytest.mark.parametrize("power", [0.5, 1, 1.05, 2])
def test_exponent_is_that_of_the_points(power: float) -> None:
    assert exponent([(x, 3 * x**power) for x in (16e3, 160e3, 1.6e6)]) == pytest.approx(power)


def test_exponent_needs_two_scales() -> None:
    assert exponent([(16_000, 1.0)]) is None


def test_every_target_says_where_nothing_was_measured() -> None:
    nothing = Figures(engine="mariadb", scale=1)
    measured = Measured(scales=[nothing], start=nothing)
    assert {target.value(measured) for target in TARGETS} == {None}


def test_targets_are_met_at_their_limits() -> None:
    dump, django = TARGETS[0], TARGETS[4]
    assert dump.is_met("postgresql", 0.8)
    assert not dump.is_met("postgresql", 0.81)
    assert django.is_met("postgresql", 50)
    assert not django.is_met("postgresql", 49.9)
