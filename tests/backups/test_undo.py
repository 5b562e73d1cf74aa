"""What a destructive operation did is undone with the safety backup that it took, and proved like any restore."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db.models import ProtectedError
from django.utils import timezone

from backups.errors import TargetNotReady
from backups.models import Backup, RestoreReport
from backups.services.catalogue import find_undo
from backups.services.plan import Mode
from backups.services.restore import RestoreOptions, restore
from core import audit
from documents.models import Document
from tests import oracle
from tests.backups.conftest import TRAIL, Terminal, nothing_changes
from tests.keypairs import KeyPair
from tests.systems import System


def state(system: System) -> list[Any]:
    return [oracle.rows(ignore=TRAIL), oracle.files(system.media)]


def undo(system: System, *arguments: str) -> dict[str, Any]:
    result = system.run("restore_backup", "--undo", "--json", "--no-input", *arguments)
    assert result.code == 0, result.out + result.err
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
    Backup.objects.filter(pk=newest.pk).update(pinned=False)
    newest.refresh_from_db()
    newest.delete()  # as its transaction would, had it been rolled back
    last = RestoreReport.objects.filter(operation="reinit").latest("change")
    RestoreReport.objects.filter(pk=last.pk).update(committed=False, change=None)

    undo(seeded)

    assert state(seeded) == before


def test_files_that_a_restore_has_made_go_with_it(seeded: System) -> None:
    restored = state(seeded)
    assert seeded.run("reinit_system", "--no-input").code == 0
    emptied = state(seeded)
    assert seeded.run("restore_backup", "latest", "--mode", "replace", "--no-input").code == 0
    assert state(seeded) == restored
    Document.objects.first().delete()  # type: ignore[union-attr]  # its files are named by no row now

    report = undo(seeded)

    assert (report["files"]["deleted"], state(seeded)) == (7, emptied)
    undo(seeded)
    assert oracle.files(seeded.media) == restored[1]


def test_files_that_no_row_named_are_undone_as_well(seeded: System) -> None:
    same, other = sorted(path for path in seeded.media.rglob("*") if path.is_file())[:2]
    contents = same.read_bytes()
    assert seeded.run("reinit_system", "--no-input").code == 0
    for path, content in ((same, contents), (other, b"somebody else's")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (seeded.media / "apart.txt").write_bytes(b"apart")
    before = state(seeded)
    assert seeded.run("restore_backup", "latest").code == 0
    assert other.read_bytes() != b"somebody else's"

    report = undo(seeded)

    assert (state(seeded), report["files"]["deleted"]) == (before, 5)


def test_files_are_removed_by_undoing_alone_and_never_where_a_row_names_them(seeded: System) -> None:
    assert seeded.run("reinit_system", "--no-input").code == 0
    assert seeded.run("restore_backup", "latest").code == 0
    safety = Backup.objects.filter(kind="safety").latest("pk").name
    restored = oracle.files(seeded.media)

    assert seeded.run("restore_backup", safety, "--mode", "replace", "--no-input").code == 0
    assert oracle.files(seeded.media) == restored
    assert seeded.run("validate_restore", safety).code == 0


def test_a_refused_operation_leaves_no_safety_backup(seeded: System) -> None:
    file = next(path for path in seeded.media.rglob("*") if path.is_file())
    file.unlink()
    file.mkdir()
    with nothing_changes(seeded):
        refused = seeded.run("reinit_system", "--no-input", "--allow-missing-files")
    assert (refused.code, list(seeded.packages.glob("*safety-*"))) == (1, [])


@pytest.mark.parametrize("committed", [False, True])
def test_the_safety_backup_of_an_operation_that_died_follows_its_transaction(seeded: System, committed: bool) -> None:
    assert seeded.run("reinit_system", "--no-input").code == 0
    report = RestoreReport.objects.get(operation="reinit")
    taken = Backup.objects.get(kind="safety")
    # As a process leaves it that was killed on one side of the commit or the other.
    RestoreReport.objects.filter(pk=report.pk).update(state="running", committed=committed)
    (seeded.packages / f".safety-{report.pk.hex}").write_text(taken.name)
    if not committed:
        Backup.objects.filter(pk=taken.pk).update(pinned=False)
        Backup.objects.filter(pk=taken.pk).delete()

    assert seeded.run("create_backup").code == 0

    assert [path.name for path in seeded.packages.glob("*safety-*")] == [taken.name] * committed


def test_a_note_deletes_nothing_but_an_uncatalogued_safety_backup(seeded: System) -> None:
    assert seeded.run("reinit_system", "--no-input").code == 0
    stored = {path.name for path in seeded.packages.iterdir()}
    for name in [*stored, "../outside", "", "safety-"]:
        dead = RestoreReport.objects.create(id=uuid.uuid4(), operation="restore", started=timezone.now())
        (seeded.packages / f".safety-{dead.pk.hex}").write_text(name)

    assert seeded.run("validate_restore", "latest").code == 3

    assert {path.name for path in seeded.packages.iterdir()} == stored


def test_safety_backups_are_pinned_and_listed(seeded: System) -> None:
    assert seeded.run("reinit_system", "--no-input").code == 0
    taken = Backup.objects.get(kind="safety")

    listed = {one["name"]: one["pinned"] for one in json.loads(seeded.run("list_backups", "--json").out)}
    assert [name for name, pinned in listed.items() if pinned] == [taken.name]
    assert "stored, pinned" in seeded.run("list_backups").out
    with pytest.raises(ProtectedError, match="is pinned"):
        taken.delete()
    with pytest.raises(ProtectedError, match="is pinned"):
        Backup.objects.all().delete()
    assert Backup.objects.count() == 2


def test_the_last_operation_is_undone_whatever_the_clock_says(seeded: System) -> None:
    now = timezone.now
    before = state(seeded)
    with pytest.MonkeyPatch.context() as patch:
        assert seeded.run("reinit_system", "--no-input").code == 0
        patch.setattr(timezone, "now", lambda: now() - timedelta(days=2))
        assert seeded.run("restore_backup", "latest").code == 2
        name = next(seeded.packages.glob("backup-*")).name
        created = seeded.run("create_backup", "--json")
        assert [one["code"] for one in json.loads(created.out)["findings"] if one["severity"] == "warning"] == [
            "clock_behind"
        ] * 2
        emptied = state(seeded)
        assert seeded.run("restore_backup", name, "--no-input", "--mode", "replace").code == 0
        undo(seeded)
        assert state(seeded) == emptied
        undo(seeded)
        assert state(seeded) == before
        assert seeded.run("verify_audit_trail").code == 0


def test_what_somebody_did_who_goes_stays_and_is_nobody_elses(seeded: System) -> None:
    late = get_user_model().objects.create_user("late", employee_id="E-LATE")
    event = audit.record("document.read", actor=late)
    kept = late.pk
    assert seeded.run("create_backup").code == 0
    names = sorted(path.name for path in seeded.packages.glob("backup-*"))
    get_user_model().objects.filter(pk=kept).update(username="renamed", employee_id="E-RENAMED")  # has her key

    result = seeded.run("restore_backup", names[-1], "--mode", "replace", "--no-input", "--json")
    assert result.code == 0
    event.refresh_from_db()
    assert event.actor == get_user_model().objects.get(username="late")

    result = seeded.run("restore_backup", names[0], "--mode", "replace", "--no-input", "--json")
    (emptied,) = [one for one in json.loads(result.out)["findings"] if one["code"] == "reference_emptied"]
    event.refresh_from_db()
    assert (result.code, emptied["model"], emptied["field"], emptied["found"]) == (0, "core.auditevent", "actor", 1)
    assert (event.actor, event.actor_name) == (None, "late")
    assert seeded.run("verify_audit_trail").code == 0


def test_an_undoing_is_confirmed_and_rehearsed_like_any_restore(seeded: System) -> None:
    assert seeded.run("reinit_system", "--no-input").code == 0
    with nothing_changes(seeded):
        refused = seeded.run("restore_backup", "--undo")
        rehearsed = seeded.run("restore_backup", "--undo", "--dry-run")
    assert (refused.code, "--no-input" in refused.err) == (6, True)
    assert rehearsed.code == 0
    assert 'info undone ["safety-' in rehearsed.out
    assert "]: this undoes the reinit that" in rehearsed.out


def test_the_confirmation_says_what_is_undone_and_by_which_package(
    seeded: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert seeded.run("reinit_system", "--no-input").code == 0
    report = RestoreReport.objects.get(operation="reinit")
    monkeypatch.setattr("sys.stdin", Terminal("no\n"))
    with nothing_changes(seeded):
        asked = seeded.run("restore_backup", "--undo")
    assert asked.code == 7
    assert f"This undoes the reinit that {report.account} began at {report.started:%Y-%m-%d %H:%M:%S} UTC" in asked.err
    assert f"{report.safety_backup} has what was there at" in asked.err


def test_a_restore_that_changed_nothing_is_nothing_to_undo(seeded: System) -> None:
    Document.objects.update(title="edited")
    edited = state(seeded)
    assert seeded.run("restore_backup", "latest").code == 0
    for arguments in ((), ("--no-safety-backup",)):
        assert seeded.run("restore_backup", "latest", *arguments).code == 0

    report = undo(seeded)

    changed = RestoreReport.objects.filter(change__isnull=False).order_by("change").first()
    assert changed is not None
    (said,) = [one["message"] for one in report["findings"] if one["code"] == "undone"]
    assert f"{changed.started:%Y-%m-%d %H:%M:%S}" in said
    assert report["package"] == changed.safety_backup
    assert state(seeded) == edited


@pytest.mark.parametrize("command", [("reinit_system",), ("restore_backup", "latest", "--mode", "replace")])
def test_what_was_done_without_a_safety_backup_is_not_undone(seeded: System, command: tuple[str, ...]) -> None:
    Document.objects.update(title="edited")
    assert seeded.run("restore_backup", "latest").code == 0
    Document.objects.update(title="edited again")
    assert seeded.run(*command, "--no-input", "--no-safety-backup").code == 0
    last = RestoreReport.objects.filter(change__isnull=False).latest("change")

    with nothing_changes(seeded):
        refused = seeded.run("restore_backup", "--undo", "--no-input")

    assert refused.code == 2
    assert f"the {last.operation} that {last.account} began at {last.started:%Y-%m-%d %H:%M:%S} UTC" in refused.err
    assert "made without a safety backup" in refused.err
    assert "restore_backup NAME --mode replace" in refused.err.split("hint:")[1]


def test_undoing_goes_no_further_back_where_a_safety_backup_is_gone(seeded: System) -> None:
    Document.objects.update(title="edited")
    for _ in range(2):
        assert seeded.run("reinit_system", "--no-input").code == 0
    gone = RestoreReport.objects.filter(change__isnull=False).latest("change").safety_backup
    (seeded.packages / gone).unlink()

    with nothing_changes(seeded):
        refused = seeded.run("restore_backup", "--undo", "--no-input")

    assert (refused.code, f"{gone} is not stored any more" in refused.err) == (2, True)


def test_undoing_is_refused_where_something_was_changed_since_it_was_asked_for(seeded: System) -> None:
    assert seeded.run("reinit_system", "--no-input").code == 0
    found = find_undo("default")
    assert seeded.run("restore_backup", "latest").code == 0
    with nothing_changes(seeded), pytest.raises(TargetNotReady, match="another operation has changed something"):
        restore(RestoreOptions(package=found.package, mode=Mode.REPLACE, undo=found))


def test_what_is_undone_by_what_the_storage_has_is_said(seeded: System) -> None:
    before = state(seeded)
    assert seeded.run("reinit_system", "--no-input").code == 0
    RestoreReport.objects.all().delete()  # as in a database that was made anew
    Backup.objects.update(pinned=False)
    Backup.objects.all().delete()

    report = undo(seeded)

    (said,) = [one for one in report["findings"] if one["code"] == "undone_unknown"]
    assert (said["severity"], "the database has no report of" in said["message"]) == ("warning", True)
    assert state(seeded) == before


def test_a_safety_backup_that_undoing_would_refuse_is_not_taken(seeded: System, settings: Any, tmp_path: Path) -> None:
    package = seeded.directory / "signed.zip"
    ours, theirs = KeyPair(tmp_path / "ours"), KeyPair(tmp_path / "theirs")
    configuration = settings.BACKUPS
    settings.BACKUPS = configuration | {"SIGNING_KEY_FILE": ours.path}
    assert seeded.run("create_backup", "--output", str(package)).code == 0
    Document.objects.update(title="edited")
    for own in ({}, {"SIGNING_KEY_FILE": theirs.path}):
        settings.BACKUPS = configuration | {"TRUSTED_KEYS": [ours.public]} | own
        for command in (("reinit_system", "--no-input"), ("restore_backup", str(package))):
            with nothing_changes(seeded):
                refused = seeded.run(*command)
            assert (refused.code, "would not be signed" in refused.err) == (6, True), refused.err
            assert "--no-safety-backup" in refused.err.split("hint:")[1]
    settings.BACKUPS = configuration | {"TRUSTED_KEYS": [ours.public], "SIGNING_KEY_FILE": ours.path}
    assert seeded.run("restore_backup", str(package)).code == 0
    undo(seeded)


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
