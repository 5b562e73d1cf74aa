"""Measure backing up and restoring beside the databases' own tools, and write the figures to a document.

Needs the engines that the tests need, by the same variables TEST_POSTGRESQL_URL and TEST_MARIADB_URL, and for --peers
the engines' own programs. Everything happens in databases called bench_…, which are dropped at the end.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks import document
from tests.benchmarks.figures import Figures
from tests.benchmarks.measure import Measurement, Tell, measure_start
from tests.benchmarks.processes import ROOT
from tests.benchmarks.scratch import Server
from tests.benchmarks.targets import Measured
from tests.engines import ENGINES
from tests.systems import Unreachable

SCALES = (16_000, 160_000)
LARGE = 1_000_000
"""Rows from which a round takes minutes."""
OUTPUT = ROOT / "docs" / "benchmarks.md"


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark and return the exit code: 1 where a run did not verify or an engine asked for is missing."""
    options = _parser().parse_args(arguments)
    engines = ENGINES if "all" in options.engine else tuple(dict.fromkeys(options.engine))
    benchmark = Benchmark(options, arguments)
    for engine in engines:
        try:
            benchmark.measure(engine)
        except Unreachable as error:
            benchmark.skip(engine, error, is_failure="all" not in options.engine)
    sys.stdout.write(benchmark.write())
    return 1 if benchmark.has_failed else 0


class Benchmark:
    """What has been measured so far. The document is written anew after each scale, so that nothing is lost."""

    def __init__(self, options: argparse.Namespace, arguments: Sequence[str]) -> None:
        self.options = options
        self.arguments = arguments
        self.found: dict[str, Measured] = {}
        self.versions: dict[str, str] = {}
        self.notes: list[str] = []
        self._is_incomplete = False

    @property
    def has_failed(self) -> bool:
        measured = [one for found in self.found.values() for one in (found.start, *found.scales)]
        return self._is_incomplete or any(series.refused for one in measured for series in one.series.values())

    def measure(self, engine: str) -> None:
        """Measure one engine at every scale. Raises ``Unreachable``."""
        with tempfile.TemporaryDirectory(prefix="bench_") as directory:
            server = Server(engine, Path(directory))
            try:
                self._measure(server)
            finally:
                server.close()

    def skip(self, engine: str, error: Unreachable, *, is_failure: bool) -> None:
        self.notes.append(f"{document.NAMES[engine]} was not reachable, and was not measured")
        self._is_incomplete = self._is_incomplete or is_failure
        _say(f"{engine} is not reachable: {error}")

    def write(self) -> str:
        """Write the document and return it."""
        text = document.render(self.found, arguments=self.arguments, versions=self.versions, notes=self.notes)
        if self.options.output.is_file():
            text += document.explanation(self.options.output.read_text())
        self.options.output.parent.mkdir(parents=True, exist_ok=True)
        self.options.output.write_text(text)
        return text

    def _rounds(self, scale: int) -> int:
        large = self.options.large_runs
        return large if large is not None and scale >= LARGE else int(self.options.runs)

    def _measure(self, server: Server) -> None:
        self.versions[server.engine] = server.version
        start = measure_start(server, runs=self.options.runs, tell=_teller(f"{server.engine} start-up"))
        scales: list[Figures] = []
        for scale in sorted(set(self.options.scale or SCALES)):
            measurement = Measurement(
                server,
                scale=scale,
                runs=self._rounds(scale),
                with_peers=self.options.peers,
                tell=_teller(f"{server.engine} {scale:,}"),
            )
            scales.append(measurement.run())
            self.found[server.engine] = Measured(scales=tuple(scales), start=start)
            self.write()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", action="append", required=True, choices=[*ENGINES, "all"], help="may be repeated")
    parser.add_argument(
        "--scale",
        action="append",
        type=_positive,
        metavar="ROWS",
        help=f"rows to generate; may be repeated; default: {' and '.join(f'{scale:,}' for scale in SCALES)}",
    )
    parser.add_argument("--peers", action="store_true", help="run the engines' own tools and Django's beside ours")
    parser.add_argument("--runs", type=_positive, default=3, metavar="N", help="rounds (default: %(default)s)")
    parser.add_argument(
        "--large-runs",
        type=_positive,
        metavar="N",
        help=f"rounds from {LARGE:,} rows on (default: as --runs)",
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="PATH", help="default: docs/benchmarks.md")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def _teller(prefix: str) -> Tell:
    return lambda line: _say(f"{prefix}: {line}")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
