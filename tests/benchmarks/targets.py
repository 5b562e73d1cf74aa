"""What the figures should be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.benchmarks import figures
from tests.benchmarks.figures import Figures, exponent

MIB = 1024 * 1024
TIMES = " \N{MULTIPLICATION SIGN}"
EVERY_ENGINE = ("postgresql", "sqlite", "mariadb")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """All figures of one engine: one for each scale, smallest first, and those of the start-up."""

    scales: Sequence[Figures]
    start: Figures

    @property
    def largest(self) -> Figures:
        return self.scales[-1]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A figure with a limit for each engine. ``value`` is None where nothing was measured."""

    title: str
    value: Callable[[Measured], float | None]
    limits: Mapping[str, float]
    at_least: bool = False
    unit: str = TIMES
    digits: int = 2

    def is_met(self, engine: str, value: float) -> bool:
        limit = self.limits[engine]
        return value >= limit if self.at_least else value <= limit


def _all(limit: float) -> dict[str, float]:
    return dict.fromkeys(EVERY_ENGINE, limit)


def beside(engine: str, name: str) -> str | None:
    """Return the operation that another one is compared with."""
    # Loading data into a migrated schema is what we do, too; only PostgreSQL's dump can be loaded that way.
    load = figures.LOAD_DATA if engine == "postgresql" else figures.LOAD
    return {
        figures.CREATE: figures.DUMP,
        figures.VALIDATE: figures.CREATE,
        figures.RESTORE: load,
        figures.DUMPDATA: figures.CREATE,
        figures.LOADDATA: figures.RESTORE,
    }.get(name)


def _against(name: str) -> Callable[[Measured], float | None]:
    def value(measured: Measured) -> float | None:
        largest = measured.largest
        return largest.ratio(name, beside(largest.engine, name) or name)

    return value


def _load_alone(measured: Measured) -> float | None:
    load = figures.seconds_of_step("load")
    return measured.largest.ratio(figures.RESTORE, figures.LOAD, load, figures.seconds)


def _against_django(ours: str, theirs: str) -> Callable[[Measured], float | None]:
    def value(measured: Measured) -> float | None:
        compared = [one.ratio(theirs, ours) for one in measured.scales if theirs in one.series]
        return compared[-1] if compared else None

    return value


OURS = (figures.CREATE, figures.RESTORE, figures.VALIDATE)


def _peaks(measured: Figures) -> list[float]:
    found = [measured.median(name, figures.peak) for name in OURS]
    return [peak for peak in found if peak is not None]


def _peak(measured: Measured) -> float | None:
    found = _peaks(measured.largest)
    return max(found) / MIB if len(found) == len(OURS) else None


def _peak_growth(measured: Measured) -> float | None:
    """The largest scale against the one before it, for the operation whose memory grows most."""
    if len(measured.scales) < 2:
        return None
    before, after = (_peaks(one) for one in measured.scales[-2:])
    if not len(before) == len(after) == len(OURS):
        return None
    return max(large / small for small, large in zip(before, after, strict=True))


def growth(measured: Measured, name: str) -> float | None:
    """Fit the exponent of an operation's time over the rows of all scales."""
    points = [(one.rows, seconds) for one in measured.scales if (seconds := one.median(name)) is not None]
    return exponent(points) if len(points) == len(measured.scales) else None


def _steepest(measured: Measured) -> float | None:
    found = [growth(measured, name) for name in OURS]
    return max(one for one in found if one is not None) if None not in found else None


TARGETS = (
    Target(
        title="`create_backup` against the native dump",
        value=_against(figures.CREATE),
        limits={"postgresql": 0.8, "sqlite": 1.0, "mariadb": 1.0},
    ),
    Target(
        title="`restore_backup`, verified, against the native load (PostgreSQL: of data into the migrated schema)",
        value=_against(figures.RESTORE),
        limits={"postgresql": 0.6, "sqlite": 1.2, "mariadb": 0.9},
    ),
    Target(
        title="its load alone against the native load of schema and data",
        value=_load_alone,
        limits={"postgresql": 1.5, "sqlite": 0.9, "mariadb": 0.6},
    ),
    Target(
        title="`validate_restore` against `create_backup`",
        value=_against(figures.VALIDATE),
        limits=_all(1.2),
    ),
    Target(
        title="faster than `dumpdata --natural-foreign`",
        value=_against_django(figures.CREATE, figures.DUMPDATA),
        limits={"postgresql": 50, "sqlite": 30, "mariadb": 30},
        at_least=True,
        digits=0,
    ),
    Target(
        title="faster than `loaddata`",
        value=_against_django(figures.RESTORE, figures.LOADDATA),
        limits={"postgresql": 50, "sqlite": 30, "mariadb": 30},
        at_least=True,
        digits=0,
    ),
    Target(
        title="package size against the native dump",
        value=lambda measured: measured.largest.ratio(figures.CREATE, figures.DUMP, figures.size),
        limits=_all(1.0),
    ),
    Target(title="peak memory", value=_peak, limits=_all(200), unit=" MiB", digits=0),
    Target(title="peak memory against that of the scale before", value=_peak_growth, limits=_all(1.2)),
    Target(title="exponent of growth", value=_steepest, limits=_all(1.05), unit=""),
    Target(
        title="`create_backup` of the demo data against `check`",
        value=lambda measured: measured.start.ratio(figures.CREATE_DEMO, figures.CHECK),
        limits=_all(1.5),
    ),
)
