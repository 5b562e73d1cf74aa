"""Reports read the same every time: exact text on a pipe, and the documented JSON object."""

from __future__ import annotations

import json
import uuid

from backups.rendering import FINDINGS_SHOWN, render_json, render_text, table, with_unit
from backups.reporting import FilesResult, Finding, ModelResult, Report, Severity, Step, Verdict

REPORT = Report(
    id=uuid.UUID(int=7),
    operation="restore",
    package="backup-x.zip",
    database="default",
    verdict=Verdict.ROLLED_BACK,
    models=[
        ModelResult(model="app.thing", package=10, before=2, created=8, updated=1, unchanged=1, after=2),
        ModelResult(model="app.other", package=1200, unchanged=1200, before=1200, after=1200, proved=True),
        ModelResult(model="app.empty", proved=True),
    ],
    files=FilesResult(package=2, bytes=2048, created=1, unchanged=1, proved=True),
    findings=[
        Finding(severity=Severity.WARNING, code="file_missing", identity=["default", "a.txt"], message="is not there"),
        Finding(
            severity=Severity.ERROR,
            code="value_differs",
            model="app.thing",
            identity=["A", 1],
            field="name",
            expected="x",
            found=1.5,
            message="the value is not the package's",
        ),
    ],
    steps=[Step(name="plan", seconds=0.1234567), Step(name="load", seconds=1)],
    seconds=1.25,
)

TEXT = """\
model      in package  before  created  updated  unchanged  after  proved
app.thing          10       2        8        1          1      2  no
app.other        1200    1200        0        0       1200   1200  yes
1 model without rows

files: 2 in package (2.0 KiB), 1 created, 1 unchanged
error value_differs app.thing ["A", 1] name: the value is not the package's (expected "x", found 1.5)
warning file_missing ["default", "a.txt"]: is not there
plan 0.12 s, load 1.00 s; 1.25 s in all
rolled back: 1 error; nothing has changed"""


def test_a_report_as_text() -> None:
    assert render_text(REPORT) == TEXT


def test_a_report_as_json() -> None:
    data = json.loads(render_json(REPORT))
    assert list(data) == [
        *("id", "operation", "verdict", "package", "database", "options", "models", "files", "findings", "steps"),
        *("seconds", "error"),
    ]
    assert data["id"] == "00000000-0000-0000-0000-000000000007"
    assert data["verdict"] == "rolled_back"
    assert data["models"][0] == {
        "model": "app.thing",
        "package": 10,
        "before": 2,
        "created": 8,
        "updated": 1,
        "unchanged": 1,
        "deleted": 0,
        "after": 2,
        "proved": False,
    }
    assert data["findings"][0] == {
        "severity": "error",
        "code": "value_differs",
        "message": "the value is not the package's",
        "model": "app.thing",
        "identity": ["A", 1],
        "field": "name",
        "expected": "x",
        "found": 1.5,
    }
    assert data["steps"] == [{"name": "plan", "seconds": 0.123}, {"name": "load", "seconds": 1}]


def test_a_terminal_gets_colour_and_the_same_words() -> None:
    drawn = render_text(REPORT, color=True)
    assert "\x1b[" in drawn
    for word in ("app.thing", "value_differs", "rolled back: 1 error; nothing has changed"):
        assert word in drawn


def test_many_findings_are_cut_and_counted() -> None:
    findings = [Finding(severity=Severity.ERROR, code="row_missing", message=f"no {n}") for n in range(60)]
    text = render_text(Report(operation="validate", verdict=Verdict.DIFFERENCES, findings=findings, id=REPORT.id))
    assert text.count("row_missing") == FINDINGS_SHOWN
    assert "and 10 more, see report 00000000-0000-0000-0000-000000000007" in text


def test_a_table_aligns_its_columns() -> None:
    assert table(("name", "n"), [("a", "1"), ("long", "10")], right=(1,)) == "name   n\na      1\nlong  10"


def test_sizes_have_units() -> None:
    assert [with_unit(size) for size in (0, 1023, 1024, 1536 * 1024, 5 * 1024**3)] == [
        *("0 B", "1023 B", "1.0 KiB", "1.5 MiB", "5.0 GiB"),
    ]
