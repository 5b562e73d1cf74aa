"""Reports as text and JSON. On a terminal, rich draws the tables; elsewhere they are plain lines of aligned columns."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from backups.reporting import (
    FilesResult,
    Finding,
    ModelResult,
    Report,
    Severity,
    Verdict,
    as_data,
    most_severe_first,
    printable,
)

FINDINGS_SHOWN = 50
"""A terminal scrolls; the stored report has them all."""

_COUNT_COLUMNS: dict[str, Callable[[ModelResult], int]] = {
    "in package": lambda result: result.package,
    "live": lambda result: result.before,
    "before": lambda result: result.before,
    "created": lambda result: result.created,
    "updated": lambda result: result.updated,
    "unchanged": lambda result: result.unchanged,
    "deleted": lambda result: result.deleted,
    "after": lambda result: result.after,
}
_COLUMNS = {
    "create": ("in package",),
    "convert": ("in package",),
    "validate": ("in package", "live"),
    "reinit": ("before", "deleted", "after"),
}
_RESTORE_COLUMNS = ("in package", "before", "created", "updated", "unchanged", "deleted", "after")
_STYLES = {
    Severity.ERROR: "bold red",
    Severity.WARNING: "yellow",
    Severity.INFO: "cyan",
    Verdict.PROVED: "bold green",
    Verdict.DIFFERENCES: "bold yellow",
    Verdict.ROLLED_BACK: "bold red",
    Verdict.FAILED: "bold red",
}


def as_json(data: Any) -> str:
    """Write any data as indented JSON; what JSON does not have becomes text."""
    return printable(json.dumps(data, indent=2, ensure_ascii=False, default=str))


def render_json(report: Report) -> str:
    """Write a report as the documented JSON object."""
    return as_json(as_data(report))


def render_text(report: Report, *, color: bool = False) -> str:
    """Write a report for people: models, files, findings, steps, and one verdict at the end."""
    parts = [
        _models(report, color=color),
        *_files(report.files),
        *_findings(report, color=color),
        *_steps(report),
        _styled(verdict_line(report), _STYLES[report.verdict], color=color),
    ]
    return "\n".join(part for part in parts if part)


def verdict_line(report: Report) -> str:
    """Say in one sentence how the operation ended."""
    rows = sum(result.package for result in report.models)
    models = sum(1 for result in report.models if result.package)
    errors = sum(1 for finding in report.findings if finding.severity is Severity.ERROR)
    held = f"{rows} rows of {models} models and {report.files.package} files"
    if report.verdict is Verdict.FAILED:
        return f"failed: {report.error or _plural(errors, 'error')}"
    if report.verdict is Verdict.ROLLED_BACK:
        return f"rolled back: {_plural(errors, 'error')}; nothing has changed"
    if report.options.get("dry_run"):
        return f"dry run: {_changes(report)}; nothing has changed"
    if report.operation == "convert" and report.verdict is Verdict.DIFFERENCES:
        return f"not converted: {_plural(errors, 'error')}; no package was written"
    if report.verdict is Verdict.DIFFERENCES:
        return f"differences: {_plural(errors, 'error')} between the system and {report.package}"
    if report.operation in ("create", "convert"):
        return f"proved: {held} are in {report.package}"
    if report.operation == "reinit":
        kept = f"; what was there is in {report.package}" if report.package else ""
        return f"proved: {sum(result.after for result in report.models)} rows of the baseline are left{kept}"
    return f"proved: {held} are as in {report.package}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), color: bool = False) -> str:
    """Write a table; the columns named in ``right`` are aligned there."""
    shown = [[printable(cell) for cell in row] for row in rows]
    if color:
        drawn = Table(box=None, pad_edge=False, header_style="bold")
        for index, name in enumerate(head):
            drawn.add_column(name, justify="right" if index in right else "left", no_wrap=index == 0)
        for row in shown:
            drawn.add_row(*(Text(cell, style=_cell_style(cell)) for cell in row))
        return _drawn(drawn)
    widths = [max(len(row[index]) for row in (head, *shown)) for index in range(len(head))]
    lines = [
        "  ".join(
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *shown)
    ]
    return "\n".join(lines)


def with_unit(size: float) -> str:
    """Write a number of bytes in the unit that suits it."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _models(report: Report, *, color: bool) -> str:
    names = _COLUMNS.get(report.operation, _RESTORE_COLUMNS)
    if not any(result.deleted for result in report.models):
        names = tuple(name for name in names if name != "deleted" or report.operation == "reinit")
    shown = [result for result in report.models if result.package or result.before or result.after]
    proves = report.operation not in ("create", "convert") and not report.options.get("dry_run")
    rows = [
        [
            result.model,
            *(str(_COUNT_COLUMNS[name](result)) for name in names),
            *(["yes" if result.proved else "no"] if proves else []),
        ]
        for result in shown
    ]
    if not report.models:
        return ""
    head = ["model", *names, *(["proved"] if proves else [])]
    text = table(head, rows, right=range(1, len(names) + 1), color=color)
    empty = len(report.models) - len(shown)
    return f"{text}\n{_plural(empty, 'model')} without rows\n" if empty else f"{text}\n"


def _files(files: FilesResult) -> list[str]:
    if not (files.package or files.deleted):
        return []
    counts = [
        f"{count} {name}"
        for name, count in (
            ("created", files.created),
            ("replaced", files.replaced),
            ("unchanged", files.unchanged),
            ("deleted", files.deleted),
            ("missing", files.missing),
        )
        if count
    ]
    in_package = [f"{files.package} in package ({with_unit(files.bytes)})"] if files.package else []
    return [f"files: {', '.join([*in_package, *counts])}"]


def _findings(report: Report, *, color: bool) -> list[str]:
    findings = most_severe_first(report.findings)
    lines = [_finding(finding, color=color) for finding in findings[:FINDINGS_SHOWN]]
    if len(findings) > FINDINGS_SHOWN:
        lines.append(f"and {len(findings) - FINDINGS_SHOWN} more, see report {report.id}")
    return lines


def _finding(finding: Finding, *, color: bool) -> str:
    where = " ".join(part for part in (finding.model, _value(list(finding.identity)), finding.field) if part)
    values = [
        f"{name} {_value(value)}"
        for name, value in (("expected", finding.expected), ("found", finding.found))
        if value is not None
    ]
    severity = _styled(str(finding.severity), _STYLES[finding.severity], color=color)
    text = f" {finding.code} {where}: {finding.message}"
    return severity + printable(f"{text} ({', '.join(values)})" if values else text)


def _value(value: Any) -> str:
    if value in ([], None):
        return ""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _steps(report: Report) -> list[str]:
    steps = ", ".join(f"{step.name} {step.seconds:.2f} s" for step in report.steps)
    return [f"{steps}; {report.seconds:.2f} s in all"] if steps else []


def _changes(report: Report) -> str:
    counts = {
        name: sum(getattr(result, name) for result in report.models) for name in ("created", "updated", "deleted")
    }
    if report.operation == "reinit":
        lost = sum(result.before for result in report.models)
        return f"{lost} rows and {report.files.deleted} files would be deleted"
    rows = ", ".join(f"{count} rows would be {name}" for name, count in counts.items() if count)
    written = report.files.created + report.files.replaced
    parts = [rows, f"{written} files would be written" if written else ""]
    return ", ".join(part for part in parts if part) or "nothing would change"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _cell_style(cell: str) -> str:
    return {"yes": "green", "no": "bold red", "0": "dim"}.get(cell, "")


def _styled(text: str, style: str, *, color: bool) -> str:
    return _drawn(Text(printable(text), style=style)) if color else printable(text)


def _drawn(content: Table | Text) -> str:
    console = Console(file=io.StringIO(), force_terminal=True, width=max(100, shutil.get_terminal_size().columns))
    with console.capture() as capture:
        console.print(content, soft_wrap=True)
    return capture.get().rstrip("\n")
