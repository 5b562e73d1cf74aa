"""What a destructive operation did is undone with the safety backup that it took, and proved like any restore."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth import get_user_model

from backups.models import Backup
from documents.models import Document
from tests import oracle
from tests.backups.conftest import TRAIL, nothing_changes
from tests.systems import System


def state(system: System) -> list[Any]:
    return [oracle.rows(ignore=TRAIL), oracle.files(system.media)]


def undo(system: System, *arguments: str) -> dict[str, Any]:
    result = system.run("restore_backup", "--undo", "--json", "--no-input", *arguments)
    assert result.code == 0, result.err
    report: dict[str, Any] = json.loads(result.out)
    return report


def test_a_reinitialisation_is_undone(seeded: System) -> None:
    before = state(seeded)
    assert seeded.run("reinit_system", "--no-input").code == 0
    listed = [one for one in json.loads(seeded.run("list_backups", "--json").out) if one["kind"] == "safety"]

    report = undo(seeded)

    assert [report["package"]] == [one["name"] for one in listed]
    assert (report["verdict"], report["options"]["mode"]) == ("proved", "replace")
    assert state(seeded) == before
    assert seeded.run("verify_audit_trail").code == 0


def test_a_restore_is_undone_and_the_undoing_too(seeded: System) -> None:
    restored = state(seeded)
    Document.objects.update(title="edited since")
    get_user_model().objects.create_user("late", employee_id="E-LATE")
    file = next(path for path in seeded.media.rglob("*") if path.is_file())
    file.write_bytes(b"edited since")
    edited = state(seeded)
    assert seeded.run("restore_backup", "latest", "--mode", "replace", "--no-input").code == 0
    assert state(seeded) == restored

    undo(seeded)
    assert state(seeded) == edited

    undo(seeded)
    assert state(seeded) == restored


def test_files_that_a_restore_alone_has_changed_are_undone(seeded: System) -> None:
    file = next(path for path in seeded.media.rglob("*") if path.is_file())
    file.write_bytes(b"edited since")
    edited = state(seeded)
    assert seeded.run("restore_backup", "latest").code == 0
    assert state(seeded) != edited

    undo(seeded)

    assert state(seeded) == edited


def test_the_safety_backup_of_an_operation_that_died_is_not_what_is_undone(seeded: System) -> None:
    before = state(seeded)
    assert seeded.run("reinit_system", "--no-input").code == 0
    assert seeded.run("reinit_system", "--no-input").code == 0
    newest = Backup.objects.filter(kind="safety").order_by("created").last()
    assert newest is not None
    newest.delete()  # as its transaction would, had it been rolled back

    undo(seeded)

    assert state(seeded) == before


def test_an_undoing_is_confirmed_and_rehearsed_like_any_restore(seeded: System) -> None:
    assert seeded.run("reinit_system", "--no-input").code == 0
    with nothing_changes(seeded):
        refused = seeded.run("restore_backup", "--undo")
        rehearsed = seeded.run("restore_backup", "--undo", "--dry-run")
    assert (refused.code, "--no-input" in refused.err) == (6, True)
    assert rehearsed.code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--undo"], "there is nothing to undo"),
        (["--undo", "latest"], "--undo takes neither"),
        (["--undo", "--mode", "merge"], "--undo takes neither"),
        ([], "no package is named"),
    ],
)
def test_what_cannot_be_undone_is_refused(seeded: System, arguments: list[str], words: str) -> None:
    with nothing_changes(seeded):
        result = seeded.run("restore_backup", *arguments)
    assert (result.code, words in result.err, "hint:" in result.err) == (2, True, True)
