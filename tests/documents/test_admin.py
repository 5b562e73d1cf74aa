from __future__ import annotations

import pytest
from django.contrib.auth.models import Group
from django.core.files.base import ContentFile
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from model_bakery import baker

from core.models import AuditEvent, User
from documents.models import Document, DocumentType
from documents.services import add_version, create_document

pytestmark = pytest.mark.django_db


def member_of(group: str) -> User:
    user = baker.make(User, is_staff=True, is_active=True)
    user.groups.add(Group.objects.get(name=group))
    return user


@pytest.fixture
def author() -> User:
    return member_of("Authors")


@pytest.fixture
def document(author: User) -> Document:
    document = create_document(DocumentType.objects.get(code="SOP"), "Cleaning of vessels", author)
    add_version(document, ContentFile(b"content", name="cleaning.txt"), author)
    return document


def page_of(document: Document) -> str:
    return reverse("admin:documents_document_change", args=[document.pk])


def upload(client: Client, document: Document, **data: object) -> list[str]:
    response = client.post(reverse("admin:documents_document_upload", args=[document.pk]), data, follow=True)
    return [str(message) for message in response.context["messages"]]


def test_author_writes_a_document(client: Client, author: User) -> None:
    client.force_login(author)
    document_type = DocumentType.objects.get(code="SOP")
    response = client.post(
        reverse("admin:documents_document_add"),
        {
            "title": "Sampling",
            "document_type": document_type.pk,
            "author": author.pk,
            "reviewers": [member_of("Reviewers").pk],
            "metadata": "{}",
            "versions-TOTAL_FORMS": 0,
            "versions-INITIAL_FORMS": 0,
            "references-TOTAL_FORMS": 0,
            "references-INITIAL_FORMS": 0,
            "cited_by-TOTAL_FORMS": 0,
            "cited_by-INITIAL_FORMS": 0,
        },
    )
    assert response.status_code == 302, response.context["adminform"].form.errors
    document = Document.objects.get()
    assert document.number.startswith("SOP-")
    assert document.reviewers.count() == 1
    event = AuditEvent.objects.get()
    assert (event.action, event.actor, event.target) == ("document.created", author, document)


def test_author_uploads_a_version_on_the_documents_page(client: Client, author: User, document: Document) -> None:
    client.force_login(author)
    assert "Upload a new version" in client.get(page_of(document)).content.decode()
    messages = upload(client, document, file=SimpleUploadedFile("new.txt", b"newer"), change_summary="Chapter 4")
    assert messages == ["Version 1.1 was added."]
    version = document.latest_version
    assert version is not None
    assert (version.label, version.size, version.author, version.change_summary) == ("1.1", 5, author, "Chapter 4")


def test_upload_without_a_file_says_so(client: Client, author: User, document: Document) -> None:
    client.force_login(author)
    assert upload(client, document) == ["file: This field is required."]
    assert document.versions.count() == 1


@pytest.mark.parametrize("group", ["Reviewers", "Approvers", "Quality"])
def test_others_read_but_do_not_upload(client: Client, document: Document, group: str) -> None:
    client.force_login(member_of(group))
    page = client.get(page_of(document))
    assert document.title in page.content.decode()
    assert "Upload a new version" not in page.content.decode()
    response = client.post(
        reverse("admin:documents_document_upload", args=[document.pk]), {"file": SimpleUploadedFile("new.txt", b"x")}
    )
    assert response.status_code == 403
    assert document.versions.count() == 1


def test_upload_asks_for_a_post(client: Client, author: User, document: Document) -> None:
    client.force_login(author)
    assert client.get(reverse("admin:documents_document_upload", args=[document.pk])).status_code == 405


def test_readers_download_what_was_uploaded(client: Client, document: Document) -> None:
    client.force_login(member_of("Reviewers"))
    version = document.versions.get()
    url = reverse("documents:download", args=[version.pk])
    assert url in client.get(page_of(document)).content.decode()
    response = client.get(url)
    assert b"".join(response.streaming_content) == b"content"
    assert response["Content-Disposition"].startswith("attachment")


def test_strangers_download_nothing(client: Client, document: Document) -> None:
    url = reverse("documents:download", args=[document.versions.get().pk])
    assert client.get(url)["Location"].startswith("/admin/login/")
    client.force_login(baker.make(User, is_staff=True))
    assert client.get(url).status_code == 403


def test_history_is_the_audit_trail(client: Client, author: User, document: Document) -> None:
    client.force_login(author)
    response = client.get(reverse("admin:documents_document_history", args=[document.pk]), follow=True)
    assert "document.created" in response.content.decode()


def test_deletion_is_recorded(admin_client: Client, author: User) -> None:
    document = create_document(DocumentType.objects.get(code="SOP"), "A typing error", author)
    admin_client.post(reverse("admin:documents_document_delete", args=[document.pk]), {"post": "yes"})
    assert not Document.objects.exists()
    event = AuditEvent.objects.get(action="document.deleted")
    assert event.object_key == [document.number]


def test_document_with_versions_is_not_deleted(admin_client: Client, document: Document) -> None:
    url = reverse("admin:documents_document_delete", args=[document.pk])
    assert admin_client.post(url, {"post": "yes"}).status_code == 403
    assert Document.objects.get() == document
