from __future__ import annotations

import hashlib
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.core.files.base import ContentFile
from django.db import IntegrityError, connections, transaction
from django.utils import timezone
from model_bakery import baker

from core import audit
from core.models import AuditEvent, User
from documents.models import Document, DocumentReference, DocumentType, DocumentVersion, NumberSequence
from documents.services import add_version, create_document
from tests.systems import System

pytestmark = pytest.mark.django_db

IN_2026 = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def sop() -> DocumentType:
    return DocumentType.objects.get(code="SOP")


@pytest.fixture
def author() -> User:
    return baker.make(User, username="nina")


def upload(
    document: Document, content: bytes = b"content", name: str = "file.txt", **options: object
) -> DocumentVersion:
    return add_version(document, ContentFile(content, name=name), document.author, **options)


def test_numbers_count_per_type_and_year(sop: DocumentType, author: User) -> None:
    policy = DocumentType.objects.get(code="POL")
    in_2027 = IN_2026.replace(year=2027)
    numbers = [
        create_document(document_type, "A title", author, time=time).number
        for document_type, time in [(sop, IN_2026), (sop, IN_2026), (policy, IN_2026), (sop, in_2027)]
    ]
    assert numbers == ["SOP-2026-0001", "SOP-2026-0002", "POL-2026-0001", "SOP-2027-0001"]


def test_number_stays_when_the_document_changes(sop: DocumentType, author: User) -> None:
    document = create_document(sop, "A title", author)
    number = document.number
    document.title = "Another title"
    document.save()
    document.refresh_from_db()
    assert (document.number, document.title) == (number, "Another title")


def test_numbers_already_taken_are_passed_over(sop: DocumentType, author: User) -> None:
    baker.make(Document, number="SOP-2026-0001")
    baker.make(NumberSequence, document_type=sop, year=2026, last=0)
    assert create_document(sop, "A title", author, time=IN_2026).number == "SOP-2026-0002"


def test_failed_creation_gives_the_number_back(sop: DocumentType, author: User) -> None:
    with transaction.atomic():
        create_document(sop, "A title", author, time=IN_2026)
        transaction.set_rollback(True)
    assert not NumberSequence.objects.exists()
    assert create_document(sop, "A title", author, time=IN_2026).number == "SOP-2026-0001"


def test_numbers_are_never_given_twice(system: System) -> None:
    start = threading.Barrier(4)
    sop, author = DocumentType.objects.get(code="SOP"), User.objects.get(username="admin")

    def create() -> None:
        try:
            start.wait()
            for _ in range(5):
                create_document(sop, "A title", author, time=IN_2026)
        finally:
            connections["default"].close()  # each thread has one of its own

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = sorted(Document.objects.values_list("number", flat=True))
    assert numbers == [f"SOP-2026-{number:04d}" for number in range(1, 21)]
    assert audit.verify().problems == []
    assert audit.verify().events == 20


def test_upload_is_measured_and_recorded(sop: DocumentType, author: User) -> None:
    content = bytes(range(256)) * 1000
    version = upload(create_document(sop, "A title", author), content)
    version.refresh_from_db()
    assert (version.size, version.sha256) == (256_000, hashlib.sha256(content).hexdigest())
    with version.file.open() as file:
        assert file.read() == content
    event = AuditEvent.objects.get(action="document.version_added")
    assert event.details["sha256"] == version.sha256
    assert event.target == version


def test_file_is_stored_below_number_and_version(
    sop: DocumentType, author: User, tmp_path: Path, settings: object
) -> None:
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": tmp_path},
        },
    }
    document = create_document(sop, "A title", author, time=IN_2026)
    upload(document, b"one", "../../plan of März.txt")
    upload(document, b"two", "../../plan of März.txt")
    stored = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    directory = "documents/SOP-2026-0001"
    assert stored == {f"{directory}/1.0/plan_of_März.txt": b"one", f"{directory}/1.1/plan_of_März.txt": b"two"}
    assert {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*.txt")} == {0o600}


def test_saving_a_version_again_keeps_its_hash(sop: DocumentType, author: User) -> None:
    version = upload(create_document(sop, "A title", author))
    version = DocumentVersion.objects.get(pk=version.pk)
    version.change_summary = "Typing errors"
    version.save()
    assert DocumentVersion.objects.get(pk=version.pk).sha256 == hashlib.sha256(b"content").hexdigest()


def test_versions_count_minor_and_major(sop: DocumentType, author: User) -> None:
    document = create_document(sop, "A title", author)
    labels = [upload(document, is_major=is_major).label for is_major in (False, False, True, False)]
    assert labels == ["1.0", "1.1", "2.0", "2.1"]
    assert document.latest_version is not None
    assert document.latest_version.label == "2.1"


def test_documents_cite_each_other_once_per_kind() -> None:
    first, second = baker.make(Document, _quantity=2)
    DocumentReference.objects.create(citing=first, cited=second)
    DocumentReference.objects.create(citing=second, cited=first)
    assert list(first.cited_by.values_list("citing", flat=True)) == [second.pk]
    with pytest.raises(IntegrityError), transaction.atomic():
        DocumentReference.objects.create(citing=first, cited=second)
    with pytest.raises(IntegrityError), transaction.atomic():
        DocumentReference.objects.create(citing=first, cited=first)


def test_document_and_its_versions_are_deleted_together(sop: DocumentType, author: User) -> None:
    document = create_document(sop, "A title", author)
    document.current_version = upload(document)
    document.save()
    document.delete()
    assert not DocumentVersion.objects.exists()


def test_modification_time_is_set_on_each_save(sop: DocumentType, author: User) -> None:
    document = create_document(sop, "A title", author, time=IN_2026)
    before = timezone.now()
    document.save()
    assert document.created == IN_2026
    assert document.modified >= before
