"""The figures as a Markdown document."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import django

from tests.benchmarks import figures
from tests.benchmarks.figures import Figures, Series
from tests.benchmarks.targets import MIB, OURS, TARGETS, TIMES, Measured, Target, beside, growth

NAMES = {"postgresql": "PostgreSQL", "sqlite": "SQLite", "mariadb": "MariaDB"}
NONE = "-"
EXPLANATION = "## Where the targets are missed"
"""The heading of what people have written; it comes last."""

INTRODUCTION = """\
# Benchmarks

Written by `python -m tests.benchmarks {arguments}` on {date}.

We and the peers are real processes on the same data, run one after the other in each round. Figures are medians of
the rounds; ratios are medians of each round's own ratio. A run counts only if it ended with exit code 0, its verdict is
*proved*, and every table has the rows that it should have; an operation of which one run did not has no figure.
`restore_backup` restores into the re-initialised system, and verifies before it commits. Before each round and each
restore, PostgreSQL is vacuumed, and MariaDB has purged what was deleted. Rows and MiB per second are those of the
package's uncompressed lines, for the peers too. The peak is the resident memory of the largest process on the client's
side; 11 MiB or less is what starting a process takes. Django's commands run once. What `dumpdata` writes is put in
order before `loaddata` reads it, which otherwise refuses it.
"""


def render(
    found: Mapping[str, Measured],
    *,
    arguments: Sequence[str],
    versions: Mapping[str, str],
    notes: Sequence[str],
) -> str:
    """Write the whole document. ``found`` and ``versions`` are by engine."""
    parts = [
        INTRODUCTION.format(arguments=shlex.join(arguments), date=f"{date.today():%d %B %Y}"),  # noqa: DTZ011 - the operator's day
        *(f"- {line}" for line in machine()),
        *(f"- {version}" for version in versions.values()),
        *(f"- {note}" for note in notes),
        "",
    ]
    if found:
        parts += ["## Targets", "", "At the largest scale, but for Django's commands.", "", _targets(found), ""]
    for engine, measured in found.items():
        for one in measured.scales:
            parts += [f"## {NAMES[engine]}, {one.rows:,} rows, {_rounds(one)}", "", _scale(one), ""]
        parts += [f"### {NAMES[engine]}: where the time goes, in seconds", "", _phases(measured), ""]
        parts += [f"### {NAMES[engine]}: what a row costs in each stage of a backup, in µs", "", _stages(measured), ""]
        parts += [f"### {NAMES[engine]}: growth and start-up", "", _growth(measured), ""]
    return "\n".join(parts).rstrip() + "\n"


def explanation(text: str) -> str:
    """Return the part of a document that people have written, which a new one keeps."""
    _, heading, rest = text.partition(EXPLANATION)
    return f"\n{heading}{rest}" if heading else ""


def machine() -> list[str]:
    """Describe the machine: processor, memory, operating system, Python."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / MIB / 1024
    try:
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        system = platform.system()
    return [
        f"{os.cpu_count()} cores ({_processor()}), {memory:.0f} GiB of memory",
        f"{system}, {platform.system()} {platform.release().partition('-')[0]}",
        f"Python {platform.python_version()}, Django {django.get_version()}",
    ]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _targets(found: Mapping[str, Measured]) -> str:
    rows = [
        [target.title, *(_against(target, engine, measured) for engine, measured in found.items())]
        for target in TARGETS
    ]
    return _table(["", *(NAMES[engine] for engine in found)], rows)


def _against(target: Target, engine: str, measured: Measured) -> str:
    limit = f"{'≥' if target.at_least else '≤'} {target.limits[engine]:g}{target.unit}"
    value = target.value(measured)
    if value is None:
        return f"not measured ({limit})"
    verdict = "met" if target.is_met(engine, value) else "**not met**"
    return f"{value:.{target.digits}f}{target.unit}, {verdict} ({limit})"


def _scale(one: Figures) -> str:
    head = ["", "seconds", "from, to", "rows/s", "MiB/s", "peak MiB", "file MiB", "ratio"]
    return _table(head, [_operation(one, name, series) for name, series in one.series.items()])


def _operation(one: Figures, name: str, series: Series) -> list[str]:
    title = f"`{_cell(series.title)}`"
    seconds, spread = series.median(), series.range()
    if seconds is None or spread is None:
        return [title, f"no figure: {_cell(series.refused) or 'not run'}", *[NONE] * 6]
    size, peak = series.median(figures.size), series.median(figures.peak)
    return [
        title,
        f"{seconds:.2f}",
        f"{spread[0]:.2f}, {spread[1]:.2f}",
        f"{one.rows / seconds:,.0f}",
        f"{one.bytes / MIB / seconds:.1f}",
        f"{(peak or 0) / MIB:.0f}",
        f"{size / MIB:.1f}" if size else NONE,
        _ratio(one, name),
    ]


def _ratio(one: Figures, name: str) -> str:
    other = beside(one.engine, name)
    ratio = one.ratio(name, other) if other else None
    if other is None or ratio is None:
        return NONE
    return f"{ratio:.2f}{TIMES} `{_cell(one.series[other].title)}`"


def _phases(measured: Measured) -> str:
    rows = []
    for name in OURS:
        for one in measured.scales:
            series = one.of(name)
            total = series.median()
            if total is None:
                continue
            steps = series.steps()
            parts = ", ".join(f"{step} {seconds:.2f}" for step, seconds in steps.items())
            rows.append([f"`{name}`", f"{one.rows:,}", parts, f"{max(0.0, total - sum(steps.values())):.2f}"])
    return _table(["", "rows", "phases", "outside them"], rows)


def _stages(measured: Measured) -> str:
    """One stage after the other; the native dump's time for a row beside them."""
    stages = list(measured.largest.stages)
    rows = []
    for one in measured.scales:
        dump = one.median(figures.DUMP)
        beside = f"{1e6 * dump / one.rows:.2f}" if dump and one.rows else NONE
        rows.append([f"{one.rows:,}", *(f"{one.stages.get(stage, 0):.2f}" for stage in stages), beside])
    return _table(["rows", *stages, "the native dump, all in all"], rows)


def _growth(measured: Measured) -> str:
    rows = []
    for name in OURS:
        found = growth(measured, name)
        exponent = f"time grows with rows to the power of {found:.2f}" if found is not None else "one scale, no growth"
        rows.append([f"`{name}`", exponent])
    for series in measured.start.series.values():
        seconds = series.median()
        text = f"{seconds:.2f} s" if seconds is not None else f"no figure: {_cell(series.refused)}"
        rows.append([f"`{series.title}`", text])
    return _table(["", ""], rows)


def _rounds(one: Figures) -> str:
    runs = max((len(series.samples) for series in one.series.values()), default=0)
    return f"{runs} rounds" if runs > 1 else "one round"


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
