"""A package that create_backup wrote is complete, private and the same for the same data; or there is none."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backports import zstd
from django.contrib.sessions.models import Session
from django.db import DatabaseError, connections
from django.utils import timezone

from backups import reports
from backups.models import Backup
from backups.package.reader import PackageReader
from backups.package.writer import PackageWriter
from backups.services import catalogue
from documents.models import Document, DocumentVersion
from tests import oracle
from tests.backups.conftest import nothing_changes
from tests.systems import System


def members(package: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(package) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name != "manifest.json"}


def test_a_package_is_private_from_its_first_byte(seeded: System, package: Path) -> None:
    assert stat.S_IMODE(package.stat().st_mode) == 0o600
    assert [path.name for path in seeded.packages.iterdir()] == [package.name]


def test_the_same_data_gives_the_same_bytes(seeded: System, package: Path) -> None:
    trail = "data/core.auditevent/00000.jsonl.zst"  # in which the first backup has left an event

    assert seeded.run("create_backup").code == 0

    (again,) = set(seeded.packages.glob("backup-*.zip")) - {package}
    one, two = members(package), members(again)
    assert one.pop(trail) != two.pop(trail)
    assert one == two


def test_a_record_is_a_fixture_object_that_any_tool_can_read(seeded: System, package: Path) -> None:
    lines = zstd.decompress(members(package)["data/documents.document/00000.jsonl.zst"]).splitlines()
    document = json.loads(lines[0])
    assert document["model"] == "documents.document"
    assert document["fields"]["author"] == ["alice"]
    assert isinstance(document["refs"]["author"], int)
    assert re.search(r"\.\d{6}\+00:00$", document["fields"]["created"])


def test_what_is_left_out_is_named_with_its_rows(system: System, settings: Any) -> None:
    settings.BACKUPS = settings.BACKUPS | {"EXCLUDE": ["workflows.DocumentWorkflow"]}
    Session.objects.create(session_key="one", session_data="x", expire_date=timezone.now())
    system.run("seed_demo")
    assert system.run("create_backup").code == 0
    (package,) = system.packages.glob("backup-*.zip")
    with PackageReader(package) as reader:
        excluded = {entry.label: (entry.rows, entry.reason) for entry in reader.manifest.excluded}
        assert not list(reader.lines("sessions.session"))
    assert excluded["sessions.session"] == (1, "sessions belong to one running system")
    assert excluded["workflows.documentworkflow"] == (4, "BACKUPS['EXCLUDE']")


def test_a_file_that_is_missing_stops_the_backup(seeded: System, package: Path) -> None:
    version = DocumentVersion.objects.first()
    assert version is not None
    (seeded.media / version.file.name).unlink()

    refused = seeded.run("create_backup")

    assert refused.code == 3
    assert version.file.name in refused.err
    assert "--allow-missing-files" in refused.err
    assert list(seeded.packages.iterdir()) == [package]


@pytest.mark.parametrize("command", [["create_backup", "--allow-missing-files"], ["restore_backup", "latest"]])
@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_bytes(b"edited")])
def test_a_file_that_vanishes_or_changes_between_its_readings_is_named(
    lite: System, monkeypatch: pytest.MonkeyPatch, command: list[str], change: Callable[[Path], object]
) -> None:
    assert (lite.run("seed_demo").code, lite.run("create_backup").code) == (0, 0)
    Document.objects.update(title="edited")
    name = DocumentVersion.objects.first().file.name  # type: ignore[union-attr]
    content, original = (lite.media / name).read_bytes(), PackageWriter.add_file

    def add_file(self: PackageWriter, sha256: str, *arguments: Any) -> None:
        if sha256 == hashlib.sha256(content).hexdigest():
            change(lite.media / name)
        original(self, sha256, *arguments)

    monkeypatch.setattr(PackageWriter, "add_file", add_file)
    done = lite.run(*command)

    assert done.code == 1
    assert f"the file {name!r} in storage 'default' changed while it was read" in done.err
    assert len(list(lite.packages.iterdir())) == 1
    assert Document.objects.filter(title="edited").exists()


def test_a_file_that_is_missing_is_named_in_the_package_where_that_was_asked_for(seeded: System, package: Path) -> None:
    version = DocumentVersion.objects.first()
    assert version is not None
    (seeded.media / version.file.name).unlink()

    created = seeded.run("create_backup", "--allow-missing-files", "--json")

    report = json.loads(created.out)
    assert (created.code, report["files"]["missing"]) == (0, 1)
    assert [(one["severity"], one["identity"]) for one in report["findings"] if one["code"] == "file_missing"] == [
        ("warning", ["default", version.file.name])
    ]
    assert seeded.run("validate_restore", "latest").code == 0


def test_a_path_that_exists_is_never_overwritten(seeded: System, tmp_path: Path) -> None:
    path = tmp_path / "mine.zip"
    assert seeded.run("create_backup", "--output", str(path)).code == 0
    before = path.read_bytes()
    assert seeded.run("create_backup", "--output", str(path)).code == 2
    assert path.read_bytes() == before
    assert seeded.run("validate_restore", str(path), "--allow-extra").code == 0


@pytest.mark.parametrize("level", [1, 19])
def test_any_level_of_compression_is_read_back(system: System, settings: Any, level: int) -> None:
    settings.BACKUPS = settings.BACKUPS | {"COMPRESSION_LEVEL": level}
    assert system.run("create_backup").code == 0
    assert system.run("validate_restore", "latest").code == 0


def test_what_the_package_does_not_hold_is_told(seeded: System) -> None:
    (seeded.media / "stranger").mkdir()
    (seeded.media / "stranger/file.txt").write_text("of nobody")
    Path(os.fsdecode(os.fsencode(seeded.media) + b"/stranger/\xff.txt")).write_text("not UTF-8")
    with connections["default"].cursor() as cursor:
        cursor.execute("CREATE TABLE of_nobody (name VARCHAR(10))")
        cursor.execute("INSERT INTO of_nobody VALUES ('row')")
    try:
        report = json.loads(seeded.run("create_backup", "--json").out)
    finally:
        with connections["default"].cursor() as cursor:
            cursor.execute("DROP TABLE of_nobody")

    told = {one["code"]: (one["severity"], one["model"], one["found"]) for one in report["findings"]}
    assert told["table_unknown"] == ("info", "of_nobody", 1)
    assert told["files_unreferenced"] == ("info", "", 2)
    assert told["model_left_out"][0] == "info"
    assert "left out: table of_nobody (1 rows)" in seeded.run("inspect_backup", "latest").out


def test_directories_that_nobody_can_read_or_that_lead_round_in_circles_stop_no_backup(
    lite: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    lite.run("seed_demo")
    for name in ("lost+found", "stranger"):
        (lite.media / name).mkdir()
        (lite.media / name / "file.txt").write_text("of nobody")
    for name in ("l1", "stranger/l2"):
        (lite.media / name).symlink_to(lite.media)
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if Path(path).name == "lost+found":  # whoever runs the tests may be root, who can read everything
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    result = lite.run("create_backup", "--json")

    told = {one["code"]: (one["identity"], one["found"]) for one in json.loads(result.out)["findings"]}
    assert result.code == 0
    assert told["files_unreferenced"] == ([], 1)
    assert told["directory_unreadable"] == (["default", "lost+found"], 1)


def test_rows_that_the_default_manager_hides_are_told_and_kept(new_system: Callable[..., System]) -> None:
    with new_system("sqlite", "tests.awkward").active() as system:
        from tests.awkward import models

        models.Hidden(name="hidden", deleted=True).save()
        report = json.loads(system.run("create_backup", "--json").out)
        (told,) = [one for one in report["findings"] if one["code"] == "rows_hidden"]
        assert (told["model"], told["found"]) == ("awkward.hidden", 1)
        models.Hidden._base_manager.all().delete()
        assert system.run("restore_backup", "latest").code == 0
        assert models.Hidden._base_manager.get().name == "hidden"


def test_djangos_own_loaddata_loads_a_package_in_an_emergency(
    new_system: Callable[..., System], tmp_path: Path
) -> None:
    with new_system("sqlite").active() as old:
        old.run("seed_demo")
        old.run("create_backup")
        (package,) = old.packages.glob("backup-*.zip")
        before = oracle.rows(ignore={"core.auditevent"})
    with PackageReader(package) as reader, (tmp_path / "rows.jsonl").open("wb") as fixture:
        for entry in reader.manifest.models:
            fixture.writelines(line + b"\n" for line in reader.lines(entry.label))
    with new_system("sqlite").active() as new:
        with connections["default"].constraint_checks_disabled():
            assert new.run("loaddata", str(tmp_path / "rows.jsonl")).code == 0
        loaded = oracle.rows(ignore={"core.auditevent"})
    assert {label: len(rows) for label, rows in loaded.items()} == {label: len(rows) for label, rows in before.items()}
    assert loaded["documents.document"] == before["documents.document"]


def test_a_path_may_be_used_again_once_its_package_is_gone(seeded: System, tmp_path: Path) -> None:
    path = tmp_path / "package.zip"
    for note in ("once", "again"):
        assert seeded.run("create_backup", "--output", str(path), "--note", note).code == 0
        assert [backup.note for backup in Backup.objects.filter(name=str(path))] == [note]
        path.unlink()


NOT_UTF_8 = os.fsdecode(b"caf\xe9")


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--note", "x" * 256, "the note has 256 characters, and the catalogue takes 255"),
        ("--note", NOT_UTF_8, "the argument note is not UTF-8"),
        ("--output", "/".join(["x" * 50] * 6), "and the catalogue takes 255"),
        ("--output", NOT_UTF_8, "the argument output is not UTF-8"),
    ],
)
def test_what_no_catalogue_takes_is_refused_before_there_is_a_package(
    seeded: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, value: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(value).parent.mkdir(parents=True, exist_ok=True)
    before = sorted(tmp_path.rglob("*"))

    with nothing_changes(seeded):
        refused = seeded.run("create_backup", option, value)

    assert (refused.code, words in refused.err, "hint:" in refused.err) == (2, True, True), refused.err
    assert sorted(tmp_path.rglob("*")) == before


def test_the_longest_note_is_kept(seeded: System) -> None:
    note = "é🙂" * 127
    assert seeded.run("create_backup", "--note", note).code == 0
    assert Backup.objects.filter(note=note).count() == 1


@pytest.mark.parametrize("error", [DatabaseError("no room"), KeyboardInterrupt()])
def test_a_package_that_cannot_be_catalogued_is_whole_and_said_to_be(
    seeded: System, package: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(reports, "add_to_catalogue", fail)
        created = seeded.run("create_backup", "--json")

    report = json.loads(created.out)
    (made,) = set(seeded.packages.iterdir()) - {package}
    assert (created.code, report["verdict"], report["package"]) == (0, "proved", made.name)
    (said,) = [one["message"] for one in report["findings"] if one["code"] == "unfinished"]
    assert "adding the package, which is whole, to the catalogue" in said
    assert not Backup.objects.filter(name=made.name).exists()
    assert seeded.run("inspect_backup", made.name).code == 0


def test_a_package_whose_name_may_not_be_on_the_disk_is_said_to_be_whole(
    seeded: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(directory: Path) -> None:
        raise OSError(5, "Input/output error", str(directory))

    monkeypatch.setattr(catalogue, "_sync", fail)
    output = tmp_path / "package.zip"
    created = seeded.run("create_backup", "--output", str(output))
    assert (created.code, "warning unfinished" in created.out, str(output) in created.out) == (0, True, True)
    assert [path.name for path in tmp_path.glob("*.zip")] == ["package.zip"]


def test_a_directory_that_cannot_be_read_is_refused_before_there_is_a_package(
    seeded: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def refuse(path: Any, flags: int, *arguments: Any, **options: Any) -> int:  # tests may run as root
        if str(path) == str(tmp_path) and flags == os.O_RDONLY:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    refused = seeded.run("create_backup", "--output", str(tmp_path / "package.zip"))
    assert (refused.code, f"{tmp_path} cannot be read: Permission denied" in refused.err) == (1, True)
    assert not (tmp_path / "package.zip").exists()


def test_a_full_disk_is_not_blamed_on_a_media_file(seeded: System, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: PackageWriter, sha256: str, size: int, crc32: int, chunks: Any) -> None:
        next(iter(chunks))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PackageWriter, "add_file", fail)
    with nothing_changes(seeded):
        failed = seeded.run("create_backup")
    assert failed.code == 1
    assert "the package cannot be written: No space left on device" in failed.err
