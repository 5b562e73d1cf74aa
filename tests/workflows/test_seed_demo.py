from __future__ import annotations

import io
import zipfile
from collections import Counter
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core.files.storage import default_storage
from django.core.management import CommandError, call_command
from django.db import connection

from core import audit
from core.models import AuditEvent, User
from documents.models import Document, DocumentReference, DocumentVersion
from tests import oracle
from tests.engines import ENGINES
from tests.systems import System
from workflows import demo, scale
from workflows.models import DocumentWorkflow, WorkflowTransition

pytestmark = pytest.mark.django_db

BASELINE = ("admin", "system")


@pytest.fixture(autouse=True)
def media(tmp_path: Path, settings: Any) -> Path:
    storage = {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": tmp_path},
    }
    settings.STORAGES = {**settings.STORAGES, "default": storage}
    return tmp_path


def seed(**options: object) -> str:
    out = StringIO()
    call_command("seed_demo", stdout=out, **options)
    return out.getvalue()


def rows() -> dict[str, list[dict[str, object]]]:
    """Everything but the two users of the baseline, which are made at the time of the migration."""
    return {
        model._meta.label: [row for row in model.objects.order_by("pk").values() if row.get("username") not in BASELINE]
        for label in ("core", "documents", "workflows")
        for model in apps.get_app_config(label).get_models(include_auto_created=True)
    }


def test_company_is_as_large_as_promised(media: Path) -> None:
    seed()
    assert User.objects.count() == 10
    assert Document.objects.count() == 5
    assert DocumentWorkflow.objects.values("state").distinct().count() == DocumentWorkflow.objects.count() == 4
    assert Document.objects.filter(status=Document.Status.SUPERSEDED, superseded_by__status="effective").exists()
    pairs = set(DocumentReference.objects.values_list("citing", "cited"))
    assert any((cited, citing) in pairs for citing, cited in pairs)
    assert AuditEvent.objects.count() == audit.verify().events > 30
    assert len(audit.verify().heads) == 1
    assert audit.verify().problems == []


def test_files_are_real_and_of_several_kinds(media: Path) -> None:
    seed()
    content = {path.suffix: path.read_bytes() for path in media.rglob("*") if path.is_file()}
    assert content[".pdf"].startswith(b"%PDF-1.4\n")
    assert content[".pdf"].endswith(b"%%EOF\n")
    assert content[".png"].startswith(b"\x89PNG\r\n\x1a\n")
    assert "word/document.xml" in zipfile.ZipFile(io.BytesIO(content[".docx"])).namelist()
    assert content[".csv"].startswith("\ufeff".encode())
    assert content[".txt"].decode().startswith("Document control\n")
    for version in DocumentVersion.objects.all():
        assert (media / str(version.file)).stat().st_size == version.size


def test_pdf_knows_where_its_objects_are(media: Path) -> None:
    seed()
    pdf = next(media.rglob("*.pdf")).read_bytes()
    table = int(pdf.split(b"startxref\n")[1].split()[0])
    assert pdf[table:].startswith(b"xref\n")
    offsets = [int(line.split()[0]) for line in pdf[table:].splitlines()[3:] if line.endswith(b" n ")]
    for number, offset in enumerate(offsets, start=1):
        assert pdf[offset:].startswith(b"%d 0 obj" % number)


@pytest.mark.parametrize("engine", ENGINES)
def test_second_telling_gives_the_same_rows_and_files(new_system: Callable[..., System], engine: str) -> None:
    told = []
    for _ in range(2):
        with new_system(engine).active() as system:
            assert system.run("seed_demo", scale=400).code == 0
            told.append((oracle.rows(), oracle.keys(), oracle.files(system.media)))
    assert told[0] == told[1]


def test_alice_can_log_in_and_nobody_else() -> None:
    out = seed()
    assert User.objects.get(username="alice").check_password(demo.PASSWORD)
    assert repr(demo.PASSWORD) in out
    assert [user.username for user in User.objects.all() if user.has_usable_password()] == ["alice"]


def test_nobody_signed_what_he_or_she_wrote() -> None:
    seed(scale=2000)
    for transition in WorkflowTransition.objects.exclude(meaning="").select_related("workflow__document"):
        assert transition.actor_id != transition.workflow.document.author_id


def test_database_with_documents_is_refused_unless_forced() -> None:
    seed()
    before = rows()
    with pytest.raises(CommandError, match="already has documents; hint: --force"):
        seed()
    assert rows() == before
    seed(force=True)
    assert Document.objects.count() == 10
    assert User.objects.count() == 10
    assert audit.verify().problems == []
    assert len(audit.verify().heads) == 1


def test_scale_keeps_its_proportions(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "BATCH", 100)
    seed()
    before = Counter({label: len(found) for label, found in rows().items()})
    scale.generate(4000, "default")
    added = Counter({label: len(found) for label, found in rows().items()})
    added.subtract(before)
    assert added["core.User"] == 4
    assert added["documents.Document"] == added["workflows.DocumentWorkflow"] == 480
    assert added["documents.DocumentVersion"] == 1000
    assert added["workflows.WorkflowTransition"] == 2000
    assert 3900 < sum(added.values()) < 4100
    assert len(list(media.rglob("shared/*"))) == 16
    connection.check_constraints()
    assert audit.verify().problems == []


def test_scaled_rows_agree_with_each_other() -> None:
    seed(scale=4000)
    for workflow in DocumentWorkflow.objects.prefetch_related("transitions"):
        state = "draft"
        for transition in workflow.transitions.all():
            assert transition.from_state_id == state
            state = transition.to_state_id
        assert workflow.state_id == state
    for version in DocumentVersion.objects.filter(file__contains="shared")[:20]:
        assert default_storage.size(str(version.file)) == version.size
    document = Document.objects.filter(status="effective").last()
    assert document is not None
    assert document.current_version == document.latest_version


def test_next_rows_come_after_the_scaled_ones() -> None:
    seed(scale=2000)
    last = Document.objects.order_by("pk").last()
    assert last is not None
    document = Document.objects.create(title="One more", document_type=last.document_type, author=last.author)
    assert document.pk > last.pk
