"""Packages of the previous system are restored and converted, and lead nowhere outside themselves."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from documents.models import Document
from tests import oracle
from tests.backups.conftest import nothing_changes
from tests.fixtures import TYPE, dump, findings, relations, write
from tests.systems import System


def migration_package(path: Path, fixture: Path, media: Path, *, top: str = "") -> Path:
    def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
        entry = tarfile.TarInfo(f"{top}{name}")
        entry.size, entry.mode = len(data), 0o640
        archive.addfile(entry, io.BytesIO(data))

    with tarfile.open(path, "w:gz") as archive:
        add(archive, "metadata.json", b'{"version": "1.0"}')
        add(archive, "database/database_backup.json", fixture.read_bytes())
        add(archive, "configuration/.env", b"SECRET=1\n")
        add(archive, "scripts/restore.sh", b"#!/bin/sh\n")
        for file in sorted(media.rglob("*")):
            if file.is_file():
                add(archive, f"storage/{file.relative_to(media)}", file.read_bytes())
    return path


@pytest.mark.parametrize("top", ["", "./", "edms_migration_2025/"])
def test_a_migration_package_brings_rows_files_and_configuration(lite: System, tmp_path: Path, top: str) -> None:
    assert lite.run("seed_demo").code == 0
    before, stored = relations(), oracle.files(lite.media)
    package = migration_package(tmp_path / "old.json", dump(tmp_path / "f"), lite.media, top=top)
    assert lite.run("reinit_system", "--no-input").code == 0
    assert oracle.files(lite.media) != stored

    restored = lite.run("restore_backup", str(package), "--json", "--no-input", "--config-to", str(tmp_path / "etc"))

    assert restored.code == 0, restored.out[-3000:] + restored.err
    assert findings(restored.out) >= {("warning", "member_unknown")}
    assert "file_missing" not in restored.out
    assert relations() == before
    assert oracle.files(lite.media) == stored
    assert (tmp_path / "etc" / ".env").read_text() == "SECRET=1\n"
    validated = lite.run("validate_restore", str(package), "--allow-extra")
    assert validated.code == 0, validated.out[-3000:]
    inspected = lite.run("inspect_backup", str(package), "--json")
    assert json.loads(inspected.out)["files"] == len(stored)
    assert json.loads(inspected.out)["metadata"] == {"version": "1.0"}


@pytest.mark.parametrize("name", ["storage/../../evil", "/storage/evil", "link"])
def test_a_migration_package_that_leads_out_of_itself_is_refused(lite: System, tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "f", "w:gz") as archive:
        entry = tarfile.TarInfo(name)
        if name == "link":
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(entry, io.BytesIO(b""))
    with nothing_changes(lite):
        refused = lite.run("restore_backup", str(tmp_path / "f"), "--no-input")
    assert refused.code == 4
    empty = tmp_path / "empty"
    with tarfile.open(empty, "w") as archive:
        archive.addfile(tarfile.TarInfo("readme"))
    refused = lite.run("inspect_backup", str(empty))
    assert (refused.code, "not a package or fixture" in refused.err) == (4, True)


def test_convert_backup_writes_a_package_and_tells_what_is_not_in_it(lite: System, tmp_path: Path) -> None:
    assert lite.run("seed_demo").code == 0
    fixture, output = dump(tmp_path / "f"), tmp_path / "out.zip"
    converted = lite.run("convert_backup", str(fixture), "--output", str(output), "--json")
    assert converted.code == 0, converted.out + converted.err
    report = json.loads(converted.out)
    assert (report["operation"], report["verdict"], report["package"]) == ("convert", "proved", str(output))
    assert {model["model"]: model["package"] for model in report["models"]}["documents.document"] == 5
    assert ("warning", "precision_reduced") in findings(converted.out)
    inspected = lite.run("inspect_backup", str(output))
    assert (inspected.code, "from fixture json" in inspected.out) == (0, True)
    assert lite.run("reinit_system", "--no-input").code == 0
    assert lite.run("restore_backup", str(output), "--no-input").code == 0
    assert Document.objects.count() == 5

    again = lite.run("convert_backup", str(output))
    assert (again.code, "is a package already" in again.err) == (2, True)
    stored = lite.run("convert_backup", str(fixture))
    assert stored.code == 0
    assert f"files are in {fixture}.zip" in stored.out
    assert (tmp_path / "f.zip").read_bytes()[:2] == b"PK"
    overwriting = lite.run("convert_backup", str(fixture))
    assert (overwriting.code, "exists" in overwriting.err) == (2, True)
    assert len(list(lite.packages.glob("backup-*"))) == 0
    with nothing_changes(lite):
        refused = lite.run("convert_backup", str(write(tmp_path / "g", {**TYPE, "model": "no.model"})))
    assert (refused.code, "not converted: 1 error" in refused.out) == (3, True)
