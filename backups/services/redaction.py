"""What an operation may tell: no value of a sensitive field, and no row that a database quotes of its own accord."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

from django.apps import apps
from django.db import DatabaseError
from django.utils.crypto import salted_hmac

from backups import conf
from backups.errors import BackupError
from backups.records import identity
from backups.records.selection import primary_key_fields
from backups.records.table import Table
from backups.reporting import Finding, Report, printable

REDACTED = "[redacted]"
DEPTH_SHOWN = 20

_QUOTED = re.compile(
    r"(?P<said>\bentry )'.*'(?= for key)|(?P<also>\bvalue: )'.*'(?= for column)|(?P<last>: )\".*\"$"
    r"|(?P<before>\b\w+\s)?(?:(?<!\w)'.*?'(?!\w)|\"[^\"]*\"|\u201c.*?\u201d|\u2018.*?\u2019)"
)
_NUMBERED = re.compile(r"""\((\d+), (["'])(.*)\2\)""")  # as MySQL's driver has it
_NAMED = (
    *("at", "column", "constraint", "database", "directory", "field", "file", "function", "host", "index", "key", "on"),
    *("parameter", "relation", "role", "schema", "sequence", "server", "socket", "table", "tablespace", "user"),
)
"""Words before what databases and drivers quote where it is a name, of ours or of the system's, and no value."""
_DETAIL = re.compile(r"(Key \([^=\n]*\))=\(.*\)")
_ROW = re.compile(r"Failing row contains \(.*\)", re.DOTALL)


def redact(report: Report) -> None:
    """Take out of a report's findings what the settings hide, before it is stored or shown."""
    settings = conf.read()
    report.findings = [_redacted(finding, settings) for finding in report.findings]


def message_of(error: BaseException) -> str:
    """Say what went wrong, without what a database or a field quotes."""
    if isinstance(error, BackupError):
        return printable(str(error))
    if isinstance(error, OSError):
        return printable(str(error)) or type(error).__name__
    text = str(error).strip()
    if isinstance(error, DatabaseError):
        return without_values(text) or type(error).__name__
    return f"{type(error).__name__}: {without_values(text)}" if text else type(error).__name__


def without_values(message: str) -> str:
    """Take what is quoted, and is no name, out of the first line of what a database says."""
    first = message.strip().split("\n", 1)[0]
    if pair := _NUMBERED.fullmatch(first):
        return f"({pair[1]}, {without_values(pair[3])})"
    return printable(_QUOTED.sub(_unless_a_name, first))


def cleanse(error: BaseException) -> None:
    """Rewrite the messages of an error and of all that led to it, for whoever prints the traceback."""
    for one in _chain(error):
        if not isinstance(one, BackupError | OSError | KeyboardInterrupt) and one.args:
            one.args = (without_values(str(one)),)


def _unless_a_name(match: re.Match[str]) -> str:
    before = match["said"] or match["also"] or match["last"] or match["before"] or ""
    return match[0] if before.strip().lower() in _NAMED else f"{before}{REDACTED}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [one.__cause__, one.__context__]


def _redacted(finding: Finding, settings: conf.Configuration) -> Finding:
    expected, found, message = finding.expected, finding.found, finding.message
    if finding.code in ("row_refused", "constraint_violated"):
        message = _without_details(message, finding.model, settings)
    if any(settings.hides(finding.model, name) for name in finding.field.split(", ") if name):
        expected, found = (None if value is None else REDACTED for value in (expected, found))
        message = without_values(message)
    else:
        expected, found = (_referred(finding, value, settings) for value in (expected, found))
    return replace(
        finding,
        identity=_shallow(_identity(finding.model, finding.identity, settings)),
        expected=_shallow(expected),
        found=_shallow(found),
        message=printable(message),
    )


def _shallow(value: Any, depth: int = 0) -> Any:
    """Cut off what is nested deeper than anybody reads, and deeper than Python writes."""
    if not isinstance(value, dict | list | tuple):
        return value
    if depth > DEPTH_SHOWN:
        return "…"
    if isinstance(value, dict):
        return {key: _shallow(item, depth + 1) for key, item in value.items()}
    return [_shallow(item, depth + 1) for item in value]


def _without_details(message: str, label: str, settings: conf.Configuration) -> str:
    """Take a row that a database quotes whole out of its message, and the values of columns that are hidden."""
    message = _ROW.sub(f"Failing row contains ({REDACTED})", message)
    words = set(re.findall(r"\w+", message))
    if settings.show_values and not any(settings.hides(label, word) for word in words):
        return message
    return without_values(_DETAIL.sub(rf"\1=({REDACTED})", message))


def _referred(finding: Finding, value: Any, settings: conf.Configuration) -> Any:
    """Hide what is secret in the identity of another row, which is what the value of a reference is."""
    if isinstance(value, dict) and "key" in value:
        return value | {"key": _referred(finding, value["key"], settings)}
    if not isinstance(value, list | tuple) or not value:
        return value
    if finding.code == "unique_taken":  # the row that has the value
        return _identity(finding.model, value, settings)
    try:
        table = Table(apps.get_model(finding.model))
    except (LookupError, ValueError):
        return value
    if any(one.object_id == finding.field for one in table.generics):
        return [value[0], *_identity(str(value[0]), value[1:], settings)]
    label = next((one.to._meta.label_lower for one in table.references if one.name == finding.field), None)
    return _identity(label, value, settings) if label else value


def _identity(label: str, values: Sequence[Any], settings: conf.Configuration) -> Sequence[Any]:
    """Hide the parts of an identity that are secret: each stays the same one, and tells nothing."""
    try:
        model = apps.get_model(label)
    except (LookupError, ValueError):
        return values
    hidden = [
        any(settings.hides(label, name) for name in part.path) for part in identity.of_model(cast("Any", model)).parts
    ]
    if len(hidden) != len(values):  # the primary key, or somebody's own natural key
        names = [field.name for field in primary_key_fields(model)]
        hidden = [any(hidden) or any(settings.hides(label, name) for name in names)] * len(values)
    return [_sealed(value) if hide else value for value, hide in zip(values, hidden, strict=True)]


def _sealed(value: Any) -> str:
    return f"[redacted {salted_hmac('backups.redaction', str(value)).hexdigest()[:8]}]"
