"""Restoring into systems that have moved on: everything arrives, or nothing changes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.files.base import ContentFile
from django.db import connections
from model_bakery import baker

from backups.models import RestoreReport
from backups.services import load
from core.models import AuditEvent
from documents.models import Document, DocumentType
from tests import oracle
from tests.backups.conftest import TRAIL, nothing_changes
from tests.systems import System


def restore(system: System, *arguments: str) -> dict[str, Any]:
    result = system.run("restore_backup", "latest", "--json", "--no-input", *arguments)
    report: dict[str, Any] = json.loads(result.out)
    assert result.code == (0 if report["verdict"] == "proved" else 3), (result.out, result.err)
    return report


def codes(report: dict[str, Any]) -> set[str]:
    return {finding["code"] for finding in report["findings"] if finding["severity"] == "error"}


def counted(report: dict[str, Any], label: str) -> dict[str, Any]:
    (model,) = (model for model in report["models"] if model["model"] == label)
    return model


def test_merge_overwrites_the_packages_rows_and_keeps_the_others(seeded: System) -> None:
    wanted = oracle.rows(ignore=TRAIL)
    document = Document.objects.order_by("pk").first()
    assert document is not None
    Document.objects.filter(pk=document.pk).update(title="edited since")
    author = get_user_model().objects.get(username="alice")
    new = Document.objects.create(title="written since", document_type=DocumentType.objects.first(), author=author)

    report = restore(seeded)

    assert counted(report, "documents.document") | {"model": ""} == {
        "model": "",
        "package": 5,
        "before": 6,
        "created": 0,
        "updated": 1,
        "unchanged": 4,
        "deleted": 0,
        "after": 6,
        "proved": True,
    }
    assert Document.objects.get(pk=new.pk).title == "written since"
    found = oracle.rows(ignore=TRAIL)
    assert all(set(wanted[label]) <= set(found[label]) for label in wanted)


def test_replace_leaves_exactly_the_packages_rows(seeded: System) -> None:
    wanted, files = oracle.rows(ignore=TRAIL), oracle.files(seeded.media)
    author = get_user_model().objects.get(username="alice")
    Document.objects.create(title="written since", document_type=DocumentType.objects.first(), author=author)
    get_user_model().objects.create_user("late", employee_id="E-LATE")
    document = Document.objects.order_by("pk").first()
    assert document is not None
    document.reviewers.clear()
    Document.objects.filter(pk=document.pk).update(title="edited since")
    trail = AuditEvent.objects.count()

    report = restore(seeded, "--mode", "replace")

    assert counted(report, "core.user")["deleted"] == 1
    assert oracle.rows(ignore=TRAIL) == wanted
    assert oracle.files(seeded.media) == files
    assert AuditEvent.objects.count() >= trail
    assert seeded.run("verify_audit_trail").code == 0
    assert seeded.run("validate_restore", "latest").code == 0


def test_rows_that_were_deleted_and_renumbered_come_back(seeded: System) -> None:
    wanted = oracle.rows(ignore=TRAIL)
    seeded.run("reinit_system", "--no-input")
    # Every key below 60 now belongs to somebody else.
    baker.make(get_user_model(), _quantity=60, username=baker.seq("other"), employee_id=baker.seq("O"))

    report = restore(seeded)

    found = oracle.rows(ignore=TRAIL)
    assert counted(report, "core.user")["created"] == 8
    assert all(set(wanted[label]) <= set(found[label]) for label in wanted)
    assert Document.objects.filter(author__username__startswith="other").count() == 0


def test_unique_values_that_two_rows_exchanged_are_exchanged_back(seeded: System) -> None:
    wanted = oracle.rows(ignore=TRAIL)
    first, second = get_user_model().objects.exclude(employee_id=None).order_by("pk")[:2]
    one, two = first.employee_id, second.employee_id
    get_user_model().objects.filter(pk=first.pk).update(employee_id=None)
    get_user_model().objects.filter(pk=second.pk).update(employee_id=one)
    get_user_model().objects.filter(pk=first.pk).update(employee_id=two)

    restore(seeded)

    assert oracle.rows(ignore=TRAIL) == wanted


def test_unique_values_that_belong_to_others_now_are_all_named_and_nothing_changes(seeded: System) -> None:
    users = list(get_user_model().objects.exclude(employee_id=None).order_by("pk")[:2])
    taken = [user.employee_id for user in users]
    names = [user.username for user in users]
    for user, number in zip(users, taken, strict=True):
        get_user_model().objects.filter(pk=user.pk).update(employee_id=None)
        get_user_model().objects.create_user(f"new-{user.username}", employee_id=number)

    with nothing_changes(seeded):
        report = restore(seeded)

    assert report["verdict"] == "rolled_back"
    assert codes(report) == {"unique_taken"}
    conflicts = {finding["identity"][0]: finding["found"] for finding in report["findings"] if finding["found"]}
    assert {name: conflicts[name] for name in names} == {name: [f"new-{name}"] for name in names}


def test_dry_run_tells_what_would_happen_and_changes_nothing(seeded: System) -> None:
    Document.objects.filter(title__contains=" ").update(title="edited since")
    with nothing_changes(seeded):
        result = seeded.run("restore_backup", "latest", "--dry-run", "--json")
    report = json.loads(result.out)
    assert (result.code, report["verdict"]) == (0, "differences")
    assert counted(report, "documents.document")["updated"] > 0


@pytest.mark.parametrize("policy", ["fail", "null", "skip"])
def test_references_to_what_is_nowhere_follow_the_policy(told: System, settings: Any, policy: str) -> None:
    settings.BACKUPS = settings.BACKUPS | {"EXCLUDE": ["core.User"]}
    told.run("create_backup")
    told.run("reinit_system", "--no-input", "--no-safety-backup")
    settings.BACKUPS = settings.BACKUPS | {"EXCLUDE": []}
    get_user_model().objects.exclude(username__in=["admin", "system"]).delete()

    if policy == "fail":
        with nothing_changes(told):
            report = restore(told, "--on-missing", policy)
        assert report["verdict"] == "rolled_back"
        named = [finding for finding in report["findings"] if finding["code"] == "reference_missing"]
        assert {"documents.document", "documents.documentversion"} <= {finding["model"] for finding in named}
    elif policy == "null":
        report = restore(told, "--on-missing", policy)
        assert report["verdict"] == "rolled_back"  # an author is required, and cannot become null
        assert Document.objects.count() == 0
    else:
        report = restore(told, "--on-missing", policy)
        assert report["verdict"] == "proved", report["findings"]
        assert Document.objects.count() == 0
        assert DocumentType.objects.count() == 6


def test_references_to_rows_that_only_the_target_has_are_found_by_identity(told: System, settings: Any) -> None:
    wanted = oracle.rows(ignore=TRAIL)
    settings.BACKUPS = settings.BACKUPS | {"EXCLUDE": ["core.User", "core.User_groups", "core.User_user_permissions"]}
    told.run("create_backup")
    settings.BACKUPS = settings.BACKUPS | {"EXCLUDE": []}
    told.run("create_backup", "--output", str(told.directory / "whole.zip"))
    told.run("reinit_system", "--no-input")
    baker.make(get_user_model(), _quantity=30, username=baker.seq("other"), employee_id=baker.seq("O"))
    keys = {user.username: user.pk for user in get_user_model().objects.all()}
    assert told.run("restore_backup", str(told.directory / "whole.zip")).code == 0
    Document.objects.all().update(supersedes=None, current_version=None)

    report = restore(told)

    assert report["verdict"] == "proved"
    found = oracle.rows(ignore=TRAIL)
    assert all(set(wanted[label]) <= set(found[label]) for label in wanted if label != "core.user")
    assert {user.username: user.pk for user in get_user_model().objects.filter(username__in=keys)} == keys


def test_the_next_automatic_keys_are_free(seeded: System) -> None:
    seeded.run("reinit_system", "--no-input")
    restore(seeded)
    author = get_user_model().objects.get(username="alice")
    for number in range(20):
        Document.objects.create(title=str(number), document_type=DocumentType.objects.first(), author=author)
        get_user_model().objects.create_user(f"new-{number}", employee_id=f"N-{number}")


def test_files_that_are_other_ones_are_put_back_and_others_stay(seeded: System) -> None:
    files = oracle.files(seeded.media)
    first, second = sorted(path for path in seeded.media.rglob("*") if path.is_file())[:2]
    first.write_bytes(b"other")
    second.unlink()
    (seeded.media / "stranger.txt").write_bytes(b"not ours")

    report = restore(seeded)

    assert report["files"] | {"bytes": 0} == {
        "package": len(files),
        "bytes": 0,
        "created": 1,
        "replaced": 1,
        "unchanged": len(files) - 2,
        "deleted": 0,
        "missing": 0,
        "proved": True,
    }
    assert oracle.files(seeded.media) == files | {"stranger.txt": oracle.files(seeded.media)["stranger.txt"]}


def test_a_rolled_back_restore_leaves_files_as_they_were(seeded: System) -> None:
    name = Document.objects.exclude(current_version=None).first().current_version.file.name  # type: ignore[union-attr]
    (seeded.media / name).write_bytes(b"edited since")
    user = get_user_model().objects.exclude(employee_id=None).first()
    assert user is not None
    number = user.employee_id
    get_user_model().objects.filter(pk=user.pk).update(employee_id=None)
    get_user_model().objects.create_user("new", employee_id=number)

    with nothing_changes(seeded):
        assert restore(seeded)["verdict"] == "rolled_back"


def test_a_restore_can_be_taken_back_with_its_safety_backup(seeded: System) -> None:
    Document.objects.all().update(title="edited since")
    author = get_user_model().objects.get(username="alice")
    document = Document.objects.create(title="new", document_type=DocumentType.objects.first(), author=author)
    document.versions.create(major=1, minor=0, author=author, file=ContentFile(b"new", name="new.txt"))
    before, files = oracle.rows(ignore=TRAIL), oracle.files(seeded.media)

    report = restore(seeded, "--mode", "replace")

    safety = report["options"]["safety_backup"]
    assert oracle.rows(ignore=TRAIL) != before
    assert seeded.run("restore_backup", safety, "--mode", "replace", "--no-input").code == 0
    assert oracle.rows(ignore=TRAIL) == before
    assert oracle.files(seeded.media) == files


def test_config_files_come_back_only_where_asked(system: System, settings: Any, tmp_path: Path) -> None:
    settings.BACKUPS = settings.BACKUPS | {"CONFIG_ROOT": tmp_path, "CONFIG_FILES": [".env", "tls/site.pem"]}
    (tmp_path / ".env").write_text("KEY=secret")
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls/site.pem").write_text("PEM")
    system.run("create_backup")

    assert system.run("restore_backup", "latest", "--config-to", str(tmp_path / "restored")).code == 0

    restored = tmp_path / "restored"
    assert (restored / ".env").read_text() == "KEY=secret"
    assert (restored / "tls/site.pem").read_text() == "PEM"
    assert (restored / ".env").stat().st_mode & 0o777 == 0o600
    assert system.run("restore_backup", "latest", "--config-to", str(restored)).code == 1
    assert (restored / ".env").read_text() == "KEY=secret"


def test_every_operation_leaves_a_report_with_its_proof(seeded: System) -> None:
    seeded.run("reinit_system", "--no-input")
    seeded.run("restore_backup", "latest")
    seeded.run("validate_restore", "latest")

    reports = {report.operation: report for report in RestoreReport.objects.all()}

    assert set(reports) == {"create", "reinit", "restore", "validate"}
    assert {report.state for report in reports.values()} == {"finished"}
    assert {report.verdict for report in reports.values()} == {"proved"}
    users = reports["restore"].models.get(model="core.user")
    assert (users.package, users.before, users.after, users.proved) == (10, 2, 10, True)


def test_a_key_that_was_given_away_is_never_given_again(
    system: System, new_system: Callable[..., System], tmp_path: Path
) -> None:
    system.run("seed_demo")
    gone = get_user_model().objects.create_user("gone")
    key = gone.pk
    gone.delete()
    package = tmp_path / "package.zip"
    assert system.run("create_backup", "--output", str(package)).code == 0
    with new_system(system.engine).active() as other:
        assert other.run("restore_backup", str(package)).code == 0
        assert get_user_model().objects.create_user("new").pk > key
    assert system.run("restore_backup", str(package), "--mode", "replace", "--no-input").code == 0
    assert get_user_model().objects.create_user("new").pk > key


@pytest.fixture
def postgresql(new_system: Callable[..., System]) -> Iterator[System]:
    with new_system("postgresql").active() as active:
        active.run("seed_demo")
        yield active


def schema() -> list[str]:
    with connections["default"].cursor() as cursor:
        cursor.execute(
            "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' UNION ALL"
            " SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint"
        )
        return sorted(definition for (definition,) in cursor.fetchall())


def test_a_bulk_load_leaves_the_same_rows_and_the_same_schema(
    postgresql: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert postgresql.run("create_backup").code == 0
    before, definitions = oracle.rows(ignore=TRAIL), schema()
    for rows in (1, load.BULK_ROWS):
        monkeypatch.setattr(load, "BULK_ROWS", rows)
        assert postgresql.run("reinit_system", "--no-input").code == 0
        restored = postgresql.run("restore_backup", "latest")
        assert restored.code == 0, restored.out
        assert oracle.rows(ignore=TRAIL) == before
        assert schema() == definitions


@pytest.mark.parametrize("rows", [1, 10_000])
def test_a_bulk_load_of_references_that_lead_nowhere_is_rolled_back(
    postgresql: System, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    with connections["default"].cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute("UPDATE documents_document SET document_type_id = 4711 WHERE number = 'SOP-2026-0001'")
        cursor.execute("SET session_replication_role = origin")
    assert postgresql.run("create_backup").code == 0
    with connections["default"].cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute("UPDATE documents_document SET document_type_id = 1 WHERE document_type_id = 4711")
        cursor.execute("SET session_replication_role = origin")
    assert postgresql.run("reinit_system", "--no-input").code == 0
    monkeypatch.setattr(load, "BULK_ROWS", rows)
    definitions = schema()

    with nothing_changes(postgresql):
        restored = postgresql.run("restore_backup", "latest")

    assert restored.code == 3
    assert "reference_dangling documents.document" in restored.out
    assert schema() == definitions


@pytest.mark.parametrize("place", ["file/x", "file", "link", "writable/config", "x" * 300])
def test_a_place_for_config_files_that_cannot_be_written_is_refused_before_anything_changes(
    system: System, settings: Any, tmp_path: Path, place: str
) -> None:
    settings.BACKUPS = settings.BACKUPS | {"CONFIG_ROOT": tmp_path, "CONFIG_FILES": ["tls/site.pem"]}
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls/site.pem").write_text("PEM")
    system.run("create_backup")
    get_user_model().objects.create_user("late")
    target = tmp_path / "target"
    (target / "writable/config").mkdir(parents=True)
    (target / "file").write_text("")
    (target / "link").symlink_to("nowhere")
    (target / "writable/config/tls").write_text("")
    before = sorted(target.rglob("*"))

    with nothing_changes(system):
        refused = system.run(
            "restore_backup", "latest", "--mode", "replace", "--no-input", "--config-to", f"{target}/{place}"
        )

    assert (refused.code, "hint: give a directory" in refused.err) == (2, True), refused.err
    assert f"configuration files cannot be written to {target}" in refused.err
    assert sorted(target.rglob("*")) == before


def test_config_files_follow_no_link_out_of_their_directory(system: System, settings: Any, tmp_path: Path) -> None:
    settings.BACKUPS = settings.BACKUPS | {"CONFIG_ROOT": tmp_path, "CONFIG_FILES": ["tls/site.pem"]}
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls/site.pem").write_text("PEM")
    system.run("create_backup")
    restored, elsewhere = tmp_path / "restored", tmp_path / "elsewhere"
    for directory in (restored, elsewhere):
        directory.mkdir()
    (restored / "tls").symlink_to(elsewhere)

    with nothing_changes(system):
        refused = system.run("restore_backup", "latest", "--config-to", str(restored))
    assert refused.code == 1
    assert "leads out of" in refused.err
    (restored / "tls").unlink()
    (restored / "tls").mkdir()
    (restored / "tls/site.pem").symlink_to(elsewhere / "new")
    assert system.run("restore_backup", "latest", "--config-to", str(restored)).code == 1
    assert list(elsewhere.iterdir()) == []
