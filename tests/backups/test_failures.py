"""Whatever goes wrong ends in a message, a hint and an exit code; never in a traceback, nor half-way."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import subprocess
from pathlib import Path

import pytest
from django.core.management import CommandError
from django.test import override_settings

from backups.management.operate import failures_as_exit_codes
from backups.services import restore as restore_service
from documents.models import DocumentVersion
from tests.backups.conftest import nothing_changes, run
from tests.systems import System

LOCKED = Path(__file__).parents[1] / "golden" / "edms-package-1-passphrase.zip.age"
SEALED = LOCKED.with_name("edms-package-1-signed.zip.age")


@pytest.mark.parametrize(
    ("changes", "command", "code", "words"),
    [
        ({"DATABASE_URL": "sqlite:////nowhere/x.sqlite3"}, ("create_backup",), 1, "/nowhere"),
        ({"DATABASE_URL": "postgres://postgres@127.0.0.1:1/x"}, ("create_backup",), 1, "the database failed"),
        ({"DATABASE_URL": "postgres://postgres@127.0.0.1:1/x"}, ("recovery_drill",), 1, "the database failed"),
        ({}, ("reinit_system", "--no-input", "--database", "nowhere"), 2, "nowhere"),
        ({}, ("list_backups", "--database", "nowhere"), 2, "nowhere"),
        ({}, ("reinit_system",), 6, "--no-input"),
        ({"BACKUPS_ROOT": "/proc/nowhere"}, ("create_backup",), 1, "/proc/nowhere"),
        ({}, ("create_backup", "--output", "/nowhere/x.zip"), 2, "/nowhere"),
        ({}, ("create_backup", "--output", ""), 2, "is not a file"),
    ],
)
def test_a_failure_has_a_message_and_a_code(
    shell: dict[str, str], changes: dict[str, str], command: tuple[str, ...], code: int, words: str
) -> None:
    done = run(shell | changes, *command, capture_output=True, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr


def test_a_link_to_a_database_has_the_lock_of_that_database(shell: dict[str, str], tmp_path: Path) -> None:
    alias = tmp_path / "alias.sqlite3"
    alias.symlink_to(shell["DATABASE_URL"].removeprefix("sqlite:///"))
    with restore_service.databases.of("default").lock() as held:
        done = run(shell | {"DATABASE_URL": f"sqlite:///{alias}"}, "create_backup", capture_output=True)
    assert (held, done.returncode) == (True, 6)
    assert "another operation is running" in done.stderr
    assert list(tmp_path.glob("alias*")) == [alias]


def test_there_is_no_lock_where_there_can_be_no_database(shell: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    done = run(shell | {"DATABASE_URL": f"sqlite:///{tmp_path}/directory"}, "create_backup", capture_output=True)
    assert (done.returncode, "there can be no database" in done.stderr) == (1, True)
    assert not list(tmp_path.glob("directory.*"))


@pytest.mark.parametrize(
    ("command", "operation", "code", "words"),
    [
        (("restore_backup", "nowhere"), "restore", 2, "nowhere"),
        (("restore_backup", "latest", "--map", "foo"), "restore", 2, "foo"),
        (("inspect_backup", "nowhere"), "inspect", 2, "nowhere"),
        (("list_backups",), "list", 1, "a_file"),
    ],
)
def test_json_is_one_object_also_on_failure(
    shell: dict[str, str], tmp_path: Path, command: tuple[str, ...], operation: str, code: int, words: str
) -> None:
    (tmp_path / "a_file").touch()
    changes = {"BACKUPS_ROOT": str(tmp_path / "a_file")} if operation == "list" else {}
    done = run(shell | changes, *command, "--json", capture_output=True)
    report = json.loads(done.stdout)
    assert (done.returncode, report["verdict"], report["operation"]) == (code, "failed", operation)
    assert words in report["error"]


def test_a_file_that_stops_a_backup_is_a_finding_in_json(shell: dict[str, str]) -> None:
    next(path for path in Path(shell["MEDIA_ROOT"]).rglob("*") if path.is_file()).unlink()
    done = run(shell, "create_backup", "--json", capture_output=True)
    assert done.returncode == 3
    assert [finding["code"] for finding in json.loads(done.stdout)["findings"]] == ["file_missing"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (sqlite3.OperationalError("database or disk is full"), "the temporary directory {place} is full"),
        (sqlite3.OperationalError("unable to open database file"), "the temporary directory {place} cannot be used"),
        (OSError(28, "No space left on device"), "TMPDIR"),
        (MemoryError(), "memory"),
        (RuntimeError("can't start new thread"), "no thread"),
        (UnicodeEncodeError("utf-8", "secret\udcfe", 6, 7, "surrogates not allowed"), "not UTF-8"),
    ],
)
def test_what_the_system_does_not_give_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, words: str
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    out = io.StringIO()
    with pytest.raises(CommandError) as raised, failures_as_exit_codes({"json": True, "stdout": out}, "restore"):
        raise error
    assert raised.value.returncode == 1
    assert words.format(place=tmp_path) in str(raised.value)
    assert "hint:" in str(raised.value)
    assert json.loads(out.getvalue())["verdict"] == "failed"
    assert "secret" not in f"{raised.value}{out.getvalue()}"


def test_a_mistake_of_ours_is_a_document_and_a_traceback() -> None:
    out = io.StringIO()
    with pytest.raises(ZeroDivisionError), failures_as_exit_codes({"json": True, "stdout": out}, "restore"):
        raise ZeroDivisionError
    assert json.loads(out.getvalue())["error"] == "ZeroDivisionError"


@pytest.mark.parametrize(
    ("variables", "command", "named"),
    [
        ({"BACKUPS_PASSPHRASE": "secret\udcfe"}, ("create_backup", "--passphrase"), "BACKUPS_PASSPHRASE"),
        ({"BACKUPS_PASSPHRASE": "secret\udcfe"}, ("inspect_backup", str(LOCKED)), "BACKUPS_PASSPHRASE"),
        ({"BACKUPS_IDENTITY": "secret\udcfe"}, ("inspect_backup", str(SEALED)), "BACKUPS_IDENTITY"),
        ({}, ("create_backup", "--encrypt-to", "secret\udcfe"), "encrypt-to"),
        ({}, ("inspect_backup", "secret\udcfe.zip"), "package"),
    ],
)
def test_what_is_not_utf8_is_named_and_not_repeated(
    shell: dict[str, str], variables: dict[str, str], command: tuple[str, ...], named: str
) -> None:
    done = run(shell | variables, *command, capture_output=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{named} " in done.stderr
    assert "is not UTF-8" in done.stderr
    assert "secret" not in done.stderr


def test_a_row_that_names_a_file_elsewhere_stops_a_backup_and_not_a_reinit(seeded: System) -> None:
    DocumentVersion.objects.filter(pk=DocumentVersion.objects.first().pk).update(file="../x.txt")  # type: ignore[union-attr]
    refused = seeded.run("create_backup", "--allow-missing-files")
    assert refused.code == 1
    assert "leads out of storage" in refused.err
    assert seeded.run("reinit_system", "--no-input", "--no-safety-backup").code == 0


@pytest.mark.parametrize("command", ["create_backup", "reinit_system", "restore_backup"])
def test_a_row_that_names_a_file_with_a_nul_is_named(seeded: System, command: str) -> None:
    if seeded.engine == "postgresql":
        return  # which takes no NUL
    DocumentVersion.objects.filter(pk=DocumentVersion.objects.first().pk).update(file="a\0b.pdf")  # type: ignore[union-attr]
    arguments = {"create_backup": ["--allow-missing-files"], "restore_backup": ["latest", "--no-input"]}
    with nothing_changes(seeded):
        refused = seeded.run(command, *arguments.get(command, ["--no-input"]))
    assert refused.code == 1
    assert r"a row names the file 'a\x00b.pdf'" in refused.err
    assert "hint: correct the row" in refused.err
    assert seeded.run("reinit_system", "--no-input", "--no-safety-backup").code == 0


def test_the_rows_of_excluded_models_are_told_where_they_stand_in_the_way(seeded: System) -> None:
    with override_settings(BACKUPS={"EXCLUDE": ["documents.DocumentReference"], "STORAGE": "backups"}):
        with nothing_changes(seeded):
            refused = seeded.run("reinit_system", "--no-input", "--no-safety-backup")
        assert refused.code == 1
        assert "packages leave out" in refused.err


def test_partial_packages_of_the_dead_are_removed(seeded: System) -> None:
    (seeded.packages / ".partial-dead.zip").write_bytes(b"half")
    assert seeded.run("create_backup").code == 0
    assert not list(seeded.packages.glob(".partial-*"))


def test_pipes_among_the_packages_are_passed_over(shell: dict[str, str]) -> None:
    packages, name = Path(shell["BACKUPS_ROOT"]), "backup-20200101T000000.000000Z-00000000.zip"
    for pipe in (".partial-x", name):
        os.mkfifo(packages / pipe)
    assert run(shell, "create_backup", capture_output=True).returncode == 0
    for reference in (name, str(packages / name)):
        refused = run(shell, "inspect_backup", reference, capture_output=True)
        assert (refused.returncode, "there is no package" in refused.stderr) == (2, True)
    assert name not in run(shell, "list_backups", capture_output=True).stdout
