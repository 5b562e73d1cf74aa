"""Files that are not packages, such as the fixtures of dumpdata, are restored like packages, or refused by name."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command

from documents.models import Document
from tests.systems import System
from workflows.models import DocumentWorkflow

STYLES: dict[str, list[str]] = {
    "pk": [],
    "natural-foreign": ["--natural-foreign"],
    "natural-foreign+natural-primary": ["--natural-foreign", "--natural-primary"],
}


def compress(data: bytes, how: str) -> bytes:
    if how == "zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("fixture.json", data)
        return buffer.getvalue()
    return {"plain": bytes, "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[how](data)


def dump(path: Path, *arguments: str, form: str = "json", how: str = "plain") -> Path:
    """Write a fixture under a name that says nothing."""
    out = io.StringIO()
    call_command("dumpdata", *arguments, format=form, stdout=out)
    path.write_bytes(compress(out.getvalue().encode(), how))
    return path


def relations() -> dict[str, Any]:
    """What refers to what, in words that no primary key is among."""
    return {
        "authors": sorted(Document.objects.values_list("number", "author__username", "document_type__code")),
        "reviewers": [
            (document.number, [user.username for user in document.reviewers.order_by("username")])
            for document in Document.objects.order_by("number")
        ],
        "current": sorted(Document.objects.values_list("number", "current_version__major"), key=str),
        "workflows": sorted(DocumentWorkflow.objects.values_list("document__number", "initiator__username"), key=str),
        "groups": sorted(get_user_model().objects.values_list("username", "groups__name"), key=str),
        "managers": sorted(get_user_model().objects.values_list("username", "manager__username"), key=str),
    }


def findings(out: str) -> set[tuple[str, str]]:
    return {(one["severity"], one["code"]) for one in json.loads(out)["findings"]}


@pytest.mark.parametrize(
    ("form", "style", "how"),
    [
        ("json", "pk", "plain"),
        ("json", "natural-foreign", "gz"),
        ("jsonl", "natural-foreign+natural-primary", "bz2"),
        ("xml", "pk", "xz"),
        ("xml", "natural-foreign+natural-primary", "plain"),
        ("yaml", "natural-foreign", "zip"),
        ("jsonl", "pk", "zip"),
    ],
)
def test_a_fixture_survives_reinitialisation(system: System, tmp_path: Path, form: str, style: str, how: str) -> None:
    if form == "yaml":
        pytest.importorskip("yaml")
    assert system.run("seed_demo").code == 0
    before = relations()
    # Without its primary keys, nothing in a file says what an entry of the audit trail is about.
    left_out = ["--exclude", "core.auditevent"] if "primary" in style else []
    fixture = dump(tmp_path / "old", *STYLES[style], *left_out, form=form, how=how)
    assert system.run("reinit_system", "--no-input").code == 0
    assert Document.objects.count() == 0

    restored = system.run("restore_backup", str(fixture), "--json", "--no-input")

    assert (restored.code, restored.err) == (0, ""), restored.out[-3000:] + restored.err[-2000:]
    assert get_user_model().objects.count() == 10
    assert Document.objects.count() == 5
    assert DocumentWorkflow.objects.count() == 4
    assert relations() == before
    assert ("warning", "files_absent") in findings(restored.out)
    assert (("info", "primary_key_absent") in findings(restored.out)) is ("primary" in style)
    assert (("warning", "precision_reduced") in findings(restored.out)) is form.startswith("json")
    validated = system.run("validate_restore", str(fixture), "--allow-extra")
    assert validated.code == 0, validated.out[-3000:]
