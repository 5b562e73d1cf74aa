"""Medians, ratios and growth. A series with one run that did not verify has none of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median

CREATE, RESTORE, VALIDATE = "create_backup", "restore_backup", "validate_restore"
DUMP, LOAD, LOAD_DATA = "dump", "load", "load data"
DUMPDATA, LOADDATA = "dumpdata --natural-foreign", "loaddata"
CHECK, CREATE_DEMO = "check", "create_backup of the demo data"


class Unverified(Exception):
    """A run whose result is not what it should be: its time means nothing."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One verified run. ``size`` is that of the file it wrote; ``steps`` are the parts that it says it had."""

    seconds: float
    peak: int
    size: int = 0
    steps: Mapping[str, float] = field(default_factory=dict)


Quantity = Callable[[Sample], float]


def seconds(sample: Sample) -> float:
    return sample.seconds


def size(sample: Sample) -> float:
    return sample.size


def peak(sample: Sample) -> float:
    return sample.peak


def seconds_of_step(name: str) -> Quantity:
    return lambda sample: sample.steps.get(name, 0.0)


@dataclass(kw_only=True)
class Series:
    """The runs of one operation, by round. ``refused`` says why there are no figures."""

    title: str
    samples: dict[int, Sample] = field(default_factory=dict)
    refused: str = ""

    def median(self, quantity: Quantity = seconds) -> float | None:
        if self.refused or not self.samples:
            return None
        return median(map(quantity, self.samples.values()))

    def range(self) -> tuple[float, float] | None:
        if self.refused or not self.samples:
            return None
        found = [sample.seconds for sample in self.samples.values()]
        return min(found), max(found)

    def steps(self) -> dict[str, float]:
        """The median of each part."""
        names = dict.fromkeys(name for sample in self.samples.values() for name in sample.steps)
        return {name: self.median(seconds_of_step(name)) or 0.0 for name in names}


@dataclass(kw_only=True)
class Figures:
    """What was measured on one engine at one scale. ``bytes`` are those of the package's lines, uncompressed."""

    engine: str
    scale: int
    rows: int = 0
    bytes: int = 0
    series: dict[str, Series] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)
    """Microseconds that a row costs in each stage of a backup."""

    def of(self, name: str, title: str = "") -> Series:
        return self.series.setdefault(name, Series(title=title or name))

    def median(self, name: str, quantity: Quantity = seconds) -> float | None:
        return self.series[name].median(quantity) if name in self.series else None

    def ratio(self, name: str, beside: str, ours: Quantity = seconds, theirs: Quantity | None = None) -> float | None:
        """The median of the ratios within each round: what disturbs the machine disturbs both sides."""
        if self.median(name) is None or self.median(beside) is None:
            return None
        mine, other = self.series[name].samples, self.series[beside].samples
        ratios = [
            ours(mine[number]) / (theirs or ours)(other[number])
            for number in mine.keys() & other.keys()
            if (theirs or ours)(other[number])
        ]
        return median(ratios) if ratios else None


def exponent(points: Sequence[tuple[float, float]]) -> float | None:
    """Fit y = a · x^b by least squares of the logarithms, and return b. None for fewer than two different x."""
    logs = [(math.log(x), math.log(y)) for x, y in points]
    if len({x for x, _ in logs}) < 2:
        return None
    center_x, center_y = fmean(x for x, _ in logs), fmean(y for _, y in logs)
    return sum((x - center_x) * (y - center_y) for x, y in logs) / sum((x - center_x) ** 2 for x, _ in logs)
