from __future__ import annotations

import pytest
from django.contrib.auth.models import Group
from django.core.files.base import ContentFile
from django.test import Client
from django.urls import reverse

from core.models import AuditEvent, User
from documents.models import Document, DocumentType
from documents.services import add_version, create_document
from workflows.models import DocumentWorkflow, WorkflowTransition
from workflows.services import advance, start_workflow

pytestmark = pytest.mark.django_db

PASSWORD = "a long one"


def member_of(group: str) -> User:
    user = User.objects.create_user(f"one of {group}", password=PASSWORD, is_staff=True)
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


@pytest.fixture
def workflow(document: Document, author: User) -> DocumentWorkflow:
    workflow = DocumentWorkflow(document=document, workflow_type="review")
    start_workflow(workflow, author)
    advance(workflow, "submit", author)
    return workflow


def page_of(client: Client, workflow: DocumentWorkflow) -> str:
    return client.get(reverse("admin:workflows_documentworkflow_change", args=[workflow.pk])).content.decode()


def press(client: Client, workflow: DocumentWorkflow, action: str, **data: object) -> list[str]:
    url = reverse("admin:workflows_documentworkflow_advance", args=[workflow.pk])
    response = client.post(url, {"action": action, **data}, follow=True)
    workflow.refresh_from_db()
    return [str(message) for message in response.context["messages"]]


def start(client: Client, document: Document, workflow_type: str = "review") -> object:
    return client.post(
        reverse("admin:workflows_documentworkflow_add"),
        {
            "document": document.pk,
            "workflow_type": workflow_type,
            "reason": "It is new",
            "transitions-TOTAL_FORMS": 0,
            "transitions-INITIAL_FORMS": 0,
        },
    )


def test_author_starts_a_workflow(client: Client, document: Document, author: User) -> None:
    client.force_login(author)
    assert start(client, document).status_code == 302
    workflow = DocumentWorkflow.objects.get()
    assert (workflow.state_id, workflow.initiator, workflow.reason) == ("draft", author, "It is new")
    assert workflow.version == document.latest_version
    assert AuditEvent.objects.filter(object_type="workflows.documentworkflow").get().action == "workflow.started"


def test_workflow_that_is_not_possible_is_explained_in_the_form(
    client: Client, document: Document, author: User
) -> None:
    client.force_login(author)
    response = start(client, document, "obsolescence")
    assert "is draft: no obsolescence is possible" in response.content.decode()
    assert not DocumentWorkflow.objects.exists()


def test_page_offers_the_steps_that_the_user_may_take(client: Client, workflow: DocumentWorkflow) -> None:
    client.force_login(member_of("Reviewers"))
    page = page_of(client, workflow)
    assert "Review (sign: Reviewed)" in page
    assert 'value="return"' in page
    assert 'value="cancel"' not in page
    client.force_login(member_of("Approvers"))
    assert "Next step" not in page_of(client, workflow)


def test_reviewer_signs_with_the_password(client: Client, workflow: DocumentWorkflow) -> None:
    reviewer = member_of("Reviewers")
    client.force_login(reviewer)
    messages = press(client, workflow, "review", password=PASSWORD, comment="Well done")
    assert messages == [f"{workflow} is now: In approval."]
    transition = WorkflowTransition.objects.get(action="review")
    assert (transition.actor, transition.meaning, transition.comment) == (reviewer, "Reviewed", "Well done")
    assert "Well done" in page_of(client, workflow)


@pytest.mark.parametrize("data", [{}, {"password": "another one"}])
def test_step_is_not_signed_without_the_password(
    client: Client, workflow: DocumentWorkflow, data: dict[str, str]
) -> None:
    client.force_login(member_of("Reviewers"))
    assert press(client, workflow, "review", **data) == ["Your password is not right: the step was not signed."]
    assert workflow.state_id == "in_review"


def test_step_without_a_signature_needs_no_password(client: Client, workflow: DocumentWorkflow) -> None:
    client.force_login(member_of("Reviewers"))
    press(client, workflow, "return", comment="Chapter 4 is missing")
    assert workflow.state_id == "draft"


@pytest.mark.parametrize(
    ("group", "action", "message"),
    [("Approvers", "review", "has no permission to review"), ("Reviewers", "release", "it is in state in_review")],
)
def test_step_that_is_not_allowed_is_explained(
    client: Client, workflow: DocumentWorkflow, group: str, action: str, message: str
) -> None:
    client.force_login(member_of(group))
    assert message in press(client, workflow, action, password=PASSWORD)[0]
    assert workflow.state_id == "in_review"


def test_strangers_take_no_step(client: Client, workflow: DocumentWorkflow) -> None:
    client.force_login(User.objects.create_user("stranger", is_staff=True))
    url = reverse("admin:workflows_documentworkflow_advance", args=[workflow.pk])
    assert client.post(url, {"action": "review"}).status_code == 403
    assert client.get(url).status_code == 405


def test_document_leads_to_its_workflows_and_a_new_one(client: Client, document: Document, author: User) -> None:
    page = reverse("admin:documents_document_change", args=[document.pk])
    client.force_login(author)
    assert f"/admin/workflows/documentworkflow/add/?document={document.pk}" in client.get(page).content.decode()
    client.force_login(member_of("Reviewers"))
    assert "Start a workflow" not in client.get(page).content.decode()


@pytest.mark.parametrize("model", ["workflows_workflowtransition", "core_auditevent"])
def test_logs_are_read_only(admin_client: Client, workflow: DocumentWorkflow, model: str) -> None:
    row = WorkflowTransition.objects.first() if "workflow" in model else AuditEvent.objects.first()
    assert row is not None
    assert admin_client.get(reverse(f"admin:{model}_changelist")).status_code == 200
    assert admin_client.get(reverse(f"admin:{model}_change", args=[row.pk])).status_code == 200
    assert admin_client.get(reverse(f"admin:{model}_add")).status_code == 403
    assert admin_client.post(reverse(f"admin:{model}_change", args=[row.pk]), {"action": "x"}).status_code == 403
    assert admin_client.post(reverse(f"admin:{model}_delete", args=[row.pk]), {"post": "yes"}).status_code == 403
