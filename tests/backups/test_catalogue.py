"""The catalogue and the storage are shown as they are, also when the database is gone."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from backups.models import Backup, ModelReport, ReportFinding, RestoreReport
from tests.systems import System


def listed(system: System) -> dict[str, dict[str, object]]:
    result = system.run("list_backups", "--json")
    assert result.code == 0
    return {one["name"]: one for one in json.loads(result.out)}


def test_packages_are_listed_with_what_the_catalogue_knows(system: System) -> None:
    assert "no package yet" in system.run("list_backups").out
    system.run("seed_demo")
    system.run("create_backup", "--note", "before the upgrade")

    ((name, one),) = listed(system).items()

    assert (one["kind"], one["stored"], one["catalogued"], one["note"]) == ("backup", True, True, "before the upgrade")
    assert (one["files"], one["size"]) == (7, (system.packages / name).stat().st_size)
    assert name in system.run("list_backups").out


def test_storage_and_catalogue_are_reconciled(seeded: System, package: Path) -> None:
    seeded.run("create_backup")
    (other,) = set(seeded.packages.glob("backup-*.zip")) - {package}
    other.unlink()
    Backup.objects.filter(name=package.name).delete()
    (seeded.packages / ".partial-x.zip").write_bytes(b"")
    (seeded.packages / "notes.txt").write_bytes(b"")

    found = listed(seeded)

    assert {name: (one["stored"], one["catalogued"]) for name, one in found.items()} == {
        package.name: (True, False),
        other.name: (False, True),
    }


def test_stray_files_with_the_names_of_packages_stop_nothing(seeded: System, package: Path) -> None:
    for name in ("backup-20261399T999999.000000Z-deadbeef.zip", "backup-00000101T000000.000000Z-deadbeef.zip"):
        (seeded.packages / name).write_bytes(b"stray")
    for kind in ("backup", "safety"):
        (seeded.packages / f"{kind}-20200101T000000.000000Z-deadbeef.zip").symlink_to("nowhere")

    assert list(listed(seeded)) == [package.name]
    assert package.name in seeded.run("inspect_backup", "latest").out
    for command in (("create_backup",), ("restore_backup", "latest"), ("reinit_system", "--no-input")):
        assert seeded.run(*command).code == 0
    assert seeded.run("restore_backup", "--undo", "--no-input").code == 0


def test_latest_is_the_latest_package_and_no_file_of_that_name(
    seeded: System, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "latest").write_bytes(b"somebody's notes")
    monkeypatch.chdir(tmp_path)
    assert package.name in seeded.run("inspect_backup", "latest").out
    assert seeded.run("inspect_backup", "./latest").code == 4


def test_packages_are_listed_where_this_account_may_not_look(
    seeded: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "elsewhere.zip"
    assert seeded.run("create_backup", "--output", str(output)).code == 0
    stat = os.stat

    def refuse(path: Any, *arguments: Any, **options: Any) -> Any:  # tests may run as root, who may look anywhere
        if str(path) == str(output):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", refuse)
    assert listed(seeded)[str(output)]["stored"] is False


def test_packages_are_listed_after_the_database_is_lost(seeded: System, package: Path) -> None:
    with connections["default"].schema_editor() as editor:
        for model in (ModelReport, ReportFinding, RestoreReport, Backup):
            editor.delete_model(model)

    result = seeded.run("list_backups")

    assert result.code == 0
    assert package.name in result.out
    assert "the catalogue cannot be read" in result.err


def test_a_package_is_inspected(seeded: System, package: Path) -> None:
    result = seeded.run("inspect_backup", "latest")
    assert result.code == 0
    for expected in (
        package.name,
        "natural (document__number, major, minor)",
        "left out: sessions.session (0 rows)",
        "files: 7",
        "all hashes checked",
    ):
        assert expected in result.out
    manifest = json.loads(seeded.run("inspect_backup", package.name, "--json").out)["manifest"]
    assert {model["label"]: model["rows"] for model in manifest["models"]}["documents.document"] == 5


def test_a_package_is_found_by_name_with_and_without_its_ending(seeded: System, package: Path) -> None:
    assert seeded.run("inspect_backup", package.stem).code == 0
    assert seeded.run("inspect_backup", str(package)).code == 0
    assert seeded.run("inspect_backup", "../" + package.name).code == 2


def test_latest_is_never_a_safety_backup(seeded: System, package: Path) -> None:
    seeded.run("reinit_system", "--no-input")
    assert len(list(seeded.packages.glob("safety-*.zip"))) == 1
    assert package.name in seeded.run("inspect_backup", "latest").out


def test_what_is_whole_of_a_damaged_package_is_told(seeded: System, package: Path) -> None:
    data = bytearray(package.read_bytes())
    with zipfile.ZipFile(package) as archive:
        for name in ("data/documents.document/00000.jsonl.zst", "data/core.user/00000.jsonl.zst"):
            data[archive.getinfo(name).header_offset + 200] ^= 1
    damaged = package.with_name("damaged.zip")
    damaged.write_bytes(data)

    result = seeded.run("inspect_backup", str(damaged))

    assert result.code == 4
    assert "2 members are damaged" in result.err
    assert "data/documents.document/00000.jsonl.zst" in result.err
    assert "whole are 7 of 7 files, and 15 of 17 models" in result.err
    assert "workflows.documentworkflow" in result.err
