"""Fixtures are known by their content, read in bounded memory, and refused with the place where they are damaged."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from backups.package.foreign import contents, recognise
from backups.records.jsontext import EXACT_DECODER
from documents.models import DocumentType
from tests.backups.conftest import nothing_changes
from tests.fixtures import TYPE, user, write
from tests.systems import System


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b'[{"model": "core.user", "pk": 1, "fields": {}},\n {"model": "core.user", "pk"', "line 2"),
        (b'[{"model": "core.user",\n "pk" 1}]', "line 2"),
        (b'[{"model": "core.user"}\n{"model": "core.user"}]', "line 2"),
        (b'[{"model": "core.user"},\n7]', "object 2, line 2"),
        (b"[] []", "line 1"),
        (b'{"model": "core.user", "pk": 1, "fields": {}}\n{"model": ', "line 2"),
        (b'{"tables": ["core_user"]}', "line 1"),
        (b'[{"model": "core.user", "fields": {"username": "\xff"}}]', "line 1"),
        (b'<?xml version="1.0"?>\n<django-objects version="1.0">\n<object model="core.user"><field', "line 3"),
        (b'<?xml version="1.0"?>\n<django-objects version="2.0">', "line 2"),
        (b'<?xml version="1.0"?>\n<!DOCTYPE a [<!ENTITY b "c">]><django-objects version="1.0"/>', "line 2"),
        (b"- model: core.user\n  fields: {username: 'open\n", "line 3"),
        (b"- model: core.user\n- 7\n", "object 2, line 2"),
        (b"--- !!python/object:os.system {}\n", "line 1"),
        (gzip.compress(b"[]" * 2000, mtime=0)[:-9], "cannot be read"),
        (gzip.compress(b"[" + b" " * 9000 + b"]", mtime=0)[:-6] + b"\0" * 6, "cannot be read"),
        (b"[" * 100_000, "line 1"),
        (b"Dear colleague", "not a package or fixture"),
        (b"", "not a package or fixture"),
        (b"\x89PNG\r\n", "not a package or fixture"),
    ],
)
def test_damaged_and_unknown_content_is_told_with_its_place(
    lite: System, tmp_path: Path, content: bytes, place: str
) -> None:
    if content.startswith(b"-"):
        pytest.importorskip("yaml")
    (tmp_path / "f").write_bytes(content)
    for command in ("restore_backup", "validate_restore", "inspect_backup", "convert_backup"):
        with nothing_changes(lite):
            refused = lite.run(command, str(tmp_path / "f"))
        assert refused.code == 4, (command, refused.err)
        assert place in refused.err


def test_a_zip_of_several_files_is_no_fixture(lite: System, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "f", "w") as archive:
        archive.writestr("a.json", "[]")
        archive.writestr("b.json", "[]")
    refused = lite.run("restore_backup", str(tmp_path / "f"), "--no-input")
    assert (refused.code, "archive of 2 files" in refused.err) == (4, True)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_fixture_that_a_shell_wrote_is_read(lite: System, tmp_path: Path, encoding: str) -> None:
    one = {**TYPE, "fields": {**TYPE["fields"], "name": "Prüfung 😀"}}
    (tmp_path / "f").write_text(json.dumps([one], ensure_ascii=False, indent=1), encoding=encoding)
    restored = lite.run("restore_backup", str(tmp_path / "f"), "--no-input")
    assert restored.code == 0, restored.out + restored.err
    assert DocumentType.objects.get(code="NEW").name == "Prüfung 😀"


def test_a_large_fixture_is_read_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "f"
    blank = "x" * 1000
    with gzip.open(path, "wt") as file:
        file.write("[")
        for number in range(50_000):
            one = {"model": "core.user", "pk": number, "fields": {"username": f"u{number}", "job_title": blank}}
            file.write(("," if number else "") + json.dumps(one))
        file.write("]")
    foreign = recognise(path)
    assert foreign is not None
    tracemalloc.start()
    count = sum(1 for _ in contents(foreign, EXACT_DECODER))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 50_000
    assert peak < 4 * 1024 * 1024  # of 55 MB


def test_inspect_backup_tells_the_style_of_a_fixture(lite: System, tmp_path: Path) -> None:
    fixture = write(tmp_path / "f", user("adam", None, manager=["admin"]), TYPE, {**TYPE, "model": "no.model"})
    inspected = lite.run("inspect_backup", str(fixture), "--json")
    assert inspected.code == 0
    shown = json.loads(inspected.out)
    assert (shown["format"], shown["compression"], shown["references"]) == ("json", "", "natural keys")
    assert [(one["model"], one["known_as"], one["objects"], one["without_primary_key"]) for one in shown["models"]] == [
        ("core.user", "core.user", 1, 1),
        ("documents.documenttype", "documents.documenttype", 1, 0),
        ("no.model", "", 1, 0),
    ]
    text = lite.run("inspect_backup", str(fixture)).out
    assert "fixture: json, not compressed, references: natural keys" in text
