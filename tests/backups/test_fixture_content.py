"""Models, fields and values of fixtures that the code does not have or take are mapped, defaulted or refused."""

from __future__ import annotations

from pathlib import Path

from django.contrib.auth import get_user_model

from core.models import AuditEvent
from documents.models import Document, DocumentType
from tests.backups.conftest import nothing_changes
from tests.fixtures import TYPE, document, findings, user, write
from tests.systems import System


def test_models_and_fields_that_no_longer_exist_are_mapped_or_refused(lite: System, tmp_path: Path) -> None:
    old = {**TYPE, "model": "paper.kind", "fields": {**TYPE["fields"], "colour": "red", "label": "Newer"}}
    del old["fields"]["name"]
    fixture = write(tmp_path / "f", old)
    with nothing_changes(lite):
        refused = lite.run("restore_backup", str(fixture), "--json", "--no-input")
    assert refused.code == 3
    assert ("error", "model_unknown") in findings(refused.out)
    model = ["--map", "paper.kind=documents.documenttype"]
    with nothing_changes(lite):
        refused = lite.run("restore_backup", str(fixture), "--json", "--no-input", *model)
    assert refused.code == 3
    assert {("error", "field_unknown"), ("error", "field_absent")} <= findings(refused.out)

    fields = ["--map", "documents.documenttype.label=name", "--map", "documents.documenttype.colour="]
    restored = lite.run("restore_backup", str(fixture), "--json", "--no-input", *model, *fields)
    assert restored.code == 0, restored.out
    assert ("warning", "field_left_out") in findings(restored.out)
    assert DocumentType.objects.get(code="NEW").name == "Newer"

    left_out = lite.run("restore_backup", str(fixture), "--json", "--no-input", "--map", "paper.kind=")
    assert left_out.code == 0
    assert findings(left_out.out) == {("warning", "model_left_out")}
    assert lite.run("restore_backup", str(fixture), "--no-input", "--map", "paper.kind=no.model").code == 2
    assert lite.run("restore_backup", str(fixture), "--no-input", "--map", "paper").code == 2


def test_fields_that_are_absent_take_only_defaults_that_are_always_the_same(lite: System, tmp_path: Path) -> None:
    short = {**TYPE, "fields": {"code": "NEW", "name": "New", "description": ""}}
    restored = lite.run("restore_backup", str(write(tmp_path / "f", short)), "--json", "--no-input")
    assert restored.code == 0, restored.out
    assert findings(restored.out) == {("warning", "field_absent")}
    assert DocumentType.objects.get(code="NEW").review_months == 24

    without_time = document("NEW-1", 5, ["nobody"])
    del without_time["fields"]["created"]  # its default is the present time, which would be made up
    with nothing_changes(lite):
        refused = lite.run("restore_backup", str(write(tmp_path / "g", without_time)), "--json", "--no-input")
    assert refused.code == 3
    assert ("error", "field_absent") in findings(refused.out)


def test_values_that_no_field_takes_and_keys_given_twice_are_refused(lite: System, tmp_path: Path) -> None:
    wrong = {**TYPE, "pk": 901, "fields": {**TYPE["fields"], "code": "B", "review_months": "soon"}}
    with nothing_changes(lite):
        refused = lite.run("restore_backup", str(write(tmp_path / "f", TYPE, wrong, TYPE)), "--json", "--no-input")
    assert refused.code == 3
    assert findings(refused.out) == {("error", "value_invalid"), ("error", "primary_key_twice")}
    assert "object 2, line 1" in refused.out

    secrets = write(
        tmp_path / "g", user("adam", 700, password=["hunter2"]), user("eve", 701, password={"a": "hunter2"})
    )
    refused = lite.run("convert_backup", str(secrets))
    assert refused.code == 3
    assert "[redacted]" in refused.out
    assert "hunter2" not in refused.out


def test_a_renamed_model_is_renamed_in_content_types_too(lite: System, tmp_path: Path) -> None:
    content_type = {"model": "contenttypes.contenttype", "pk": 77, "fields": {"app_label": "paper", "model": "sheet"}}
    sheet = {**document("NEW-1", 5, 700), "model": "paper.sheet"}
    event = {
        "hash": "a" * 64,
        "previous": [],
        "time": "2026-01-02T03:04:05.678Z",
        "actor": 700,
        "actor_name": "adam",
        "action": "seen",
        "object_id": "5",
        "object_type": "sheet",
        "object_key": [],
        "details": {},
    }
    by_key = {"model": "core.auditevent", "pk": 1, "fields": {**event, "content_type": 77}}
    natural = {
        "model": "core.auditevent",
        "pk": 2,
        "fields": {**event, "hash": "b" * 64, "content_type": ["paper", "sheet"]},
    }
    Document.objects.create(
        title="on key 5", document_type=DocumentType.objects.first(), author=get_user_model().objects.first(), pk=5
    )
    fixture = write(tmp_path / "f", content_type, user("adam", 700), TYPE, sheet, by_key, natural)
    restored = lite.run(
        "restore_backup", str(fixture), "--json", "--no-input", "--map", "paper.sheet=documents.document"
    )
    assert restored.code == 0, restored.out[-3000:]
    targets = [one.target.number for one in AuditEvent.objects.filter(action="seen")]
    assert targets == ["NEW-1", "NEW-1"]
