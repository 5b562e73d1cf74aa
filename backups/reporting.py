"""Findings, reports and progress: what an operation tells, as data. Rendering is in the functions at the end."""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Protocol

# Control characters but tabs and line feeds, marks that turn the direction of text, separators, lone surrogates.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class Severity(StrEnum):
    """Most severe first. An error rolls a restore back; a warning and a note do not."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Verdict(StrEnum):
    PROVED = "proved"
    DIFFERENCES = "differences"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One observed problem or difference. ``code`` is stable; ``identity`` is the row's, as a list of values."""

    severity: Severity
    code: str
    message: str
    model: str = ""
    identity: Sequence[Any] = ()
    field: str = ""
    expected: Any = None
    found: Any = None


@dataclass(kw_only=True)
class ModelResult:
    """Row counts of one model. ``deleted`` counts the rows that were in the target and are gone."""

    model: str
    package: int = 0
    before: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    after: int = 0
    proved: bool = False


@dataclass(kw_only=True)
class FilesResult:
    """Counts of stored files. ``package`` counts names, not distinct contents."""

    package: int = 0
    bytes: int = 0
    created: int = 0
    replaced: int = 0
    unchanged: int = 0
    deleted: int = 0
    missing: int = 0
    proved: bool = False


@dataclass(kw_only=True)
class Step:
    """One timed part of an operation."""

    name: str
    seconds: float


@dataclass(kw_only=True)
class Report:
    """What an operation did and found."""

    operation: str
    package: str = ""
    database: str = ""
    id: uuid.UUID = field(default_factory=uuid.uuid4)
    verdict: Verdict = Verdict.FAILED
    models: list[ModelResult] = field(default_factory=list)
    files: FilesResult = field(default_factory=FilesResult)
    findings: list[Finding] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    seconds: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def has_errors(self) -> bool:
        return any(finding.severity is Severity.ERROR for finding in self.findings)


class Progress(Protocol):
    """What the engine needs to tell how far it is. Units are rows or bytes, as ``unit`` says."""

    def start(self, phase: str, total: int | None = None, unit: str = "rows") -> None: ...

    def advance(self, amount: int) -> None: ...

    def finish(self) -> None: ...


class NoProgress:
    """The progress of an operation that nobody watches."""

    def start(self, phase: str, total: int | None = None, unit: str = "rows") -> None: ...

    def advance(self, amount: int) -> None: ...

    def finish(self) -> None: ...


def as_data(report: Report) -> dict[str, Any]:
    """Return the report as the documented JSON object. Values that JSON does not have become text."""
    return {
        "id": str(report.id),
        "operation": report.operation,
        "verdict": str(report.verdict),
        "package": report.package,
        "database": report.database,
        "options": _plain(report.options),
        "models": [asdict(result) for result in report.models],
        "files": asdict(report.files),
        "findings": [_plain(asdict(finding)) for finding in most_severe_first(report.findings)],
        "steps": [{"name": step.name, "seconds": round(step.seconds, 3)} for step in report.steps],
        "seconds": round(report.seconds, 3),
        "error": report.error,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int) or type(value) is str:
        return value
    return value if isinstance(value, float) and math.isfinite(value) else str(value)


def printable(text: str) -> str:
    """Write out what a terminal would obey, and what nothing can encode: a package must not draw on a screen."""
    return _OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def most_severe_first(findings: Iterable[Finding]) -> list[Finding]:
    order = list(Severity)
    return sorted(findings, key=lambda finding: (order.index(finding.severity), finding.model, finding.code))
