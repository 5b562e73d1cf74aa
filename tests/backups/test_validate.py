"""Whatever is edited after a restore is found and named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth import get_user_model
from django.db.models import Field, Model, QuerySet

from documents.models import Document, DocumentReference
from tests.backups.conftest import nothing_changes
from tests.systems import System

APPLICATION = ("core", "documents", "workflows", "auth")


def edits() -> Iterator[tuple[type[Model], Field[Any, Any]]]:
    """Every column of every model of the application that is not a key."""
    for model in apps.get_models(include_auto_created=True):
        if model._meta.app_label in APPLICATION and not model._meta.proxy:
            for field in model._meta.local_concrete_fields:
                if not field.primary_key and not field.remote_field:
                    yield model, field


def other(value: Any, field: Field[Any, Any]) -> Any:
    """Return a value that differs from ``value`` in the least way that the field can hold."""
    if value is None:
        return {"DateField": date(2020, 1, 1), "DateTimeField": datetime.fromisoformat("2020-01-01T00:00:00Z")}.get(
            field.get_internal_type(), "x"
        )
    if isinstance(value, bool):
        return not value
    if isinstance(value, datetime):
        return value + timedelta(microseconds=1)
    if isinstance(value, date):
        return value + timedelta(days=1)
    if isinstance(value, int):
        return value + 1000  # beyond what a constraint would keep apart
    if isinstance(value, str):
        return value[:-1] + ("y" if value.endswith("x") else "x") if value else "x"
    if isinstance(value, dict):
        return {**value, "edited": 1}
    return [*value, 1]


def findings(system: System, *arguments: str) -> list[dict[str, Any]]:
    result = system.run("validate_restore", "latest", "--json", *arguments)
    report = json.loads(result.out)
    errors = [finding for finding in report["findings"] if finding["severity"] == "error"]
    assert (result.code, report["verdict"]) == ((3, "differences") if errors else (0, "proved"))
    return errors


def test_every_edit_of_a_value_is_found_and_named(seeded: System) -> None:
    edited = 0
    for model, field in edits():
        row = model._base_manager.order_by("pk").first()
        if row is None:
            continue
        rows = model._base_manager.filter(pk=row.pk)
        before = getattr(row, field.attname)
        before = before.name if hasattr(before, "storage") else before
        QuerySet.update(rows, **{field.name: other(before, field)})
        found = findings(seeded)
        if not any(finding["model"] == model._meta.label_lower for finding in found):
            pytest.fail(f"{model._meta.label_lower}.{field.name} was edited, and nothing was found")
        same_row = [finding for finding in found if finding["field"] == field.name]
        identity_changed = "row_missing" in {finding["code"] for finding in found}
        assert same_row or identity_changed, (field, found)
        QuerySet.update(rows, **{field.name: before})
        edited += 1
    assert edited > 60
    assert findings(seeded) == []


def test_a_changed_reference_is_found_by_name(seeded: System) -> None:
    document = Document.objects.order_by("number").last()
    assert document is not None
    author = get_user_model().objects.exclude(pk=document.author_id).order_by("username").last()
    assert author is not None
    Document.objects.filter(pk=document.pk).update(author=author)

    (finding,) = findings(seeded)

    assert finding["model"] == "documents.document"
    assert finding["identity"] == [document.number]
    assert finding["field"] == "author"
    assert finding["expected"] == [document.author.username]
    assert finding["found"] == [author.username]


def test_an_added_relation_is_found(seeded: System) -> None:
    document = Document.objects.order_by("number").first()
    assert document is not None
    user = get_user_model().objects.get(username="system")
    document.reviewers.add(user)

    (finding,) = findings(seeded)

    assert finding["code"] == "row_extra"
    assert finding["identity"] == [document.number, "system"]
    assert findings(seeded, "--allow-extra") == []


def test_a_removed_row_is_found(seeded: System) -> None:
    reference = DocumentReference.objects.order_by("pk").first()
    assert reference is not None
    identity = [reference.citing.number, reference.cited.number, reference.kind]
    reference.delete()

    (finding,) = findings(seeded)

    assert (finding["code"], finding["identity"]) == ("row_missing", identity)


def test_a_password_is_never_shown(seeded: System) -> None:
    user = get_user_model().objects.get(username="alice")
    before = user.password
    user.set_password("another")
    user.save()

    result = seeded.run("validate_restore", "latest", "--json")

    assert '"field": "password"' in result.out
    assert before not in result.out
    assert user.password not in result.out


def test_a_changed_and_a_lost_file_are_found(seeded: System) -> None:
    changed, lost = sorted(path for path in seeded.media.rglob("*") if path.is_file())[:2]
    changed.write_bytes(changed.read_bytes() + b"!")
    lost.unlink()

    found = {finding["code"]: finding["identity"] for finding in findings(seeded)}

    assert found == {
        "file_differs": ["default", str(changed.relative_to(seeded.media))],
        "file_missing": ["default", str(lost.relative_to(seeded.media))],
    }


def test_validation_changes_nothing(seeded: System) -> None:
    Document.objects.update(title="edited")
    with nothing_changes(seeded):
        assert seeded.run("validate_restore", "latest").code == 3
