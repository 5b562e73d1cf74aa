from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime

import pytest
from django.contrib.auth.models import Group
from django.core.files.base import ContentFile
from django.db.models import ProtectedError
from model_bakery import baker

from core import audit
from core.append_only import AppendOnlyError
from core.models import AuditEvent, User
from documents.models import Document, DocumentType
from documents.services import add_version, create_document
from workflows.models import DocumentWorkflow, WorkflowTransition, WorkflowType
from workflows.services import (
    FourEyesError,
    NotPermittedError,
    NotPossibleError,
    StepNotAllowedError,
    advance,
    possible_steps,
    start_workflow,
)

pytestmark = pytest.mark.django_db

TIME = datetime(2026, 1, 31, 12, 0, 0, 654321, tzinfo=UTC)


@pytest.fixture
def user() -> Callable[..., User]:
    def make(*groups: str, **fields: object) -> User:
        user = baker.make(User, is_active=fields.pop("is_active", True), **fields)
        user.groups.set(Group.objects.filter(name__in=groups))
        return user

    return make


@pytest.fixture
def author(user: Callable[..., User]) -> User:
    return user("Authors")


@pytest.fixture
def document(author: User) -> Document:
    document = create_document(DocumentType.objects.get(code="SOP"), "Cleaning", author)
    add_version(document, ContentFile(b"content", name="cleaning.txt"), author)
    return document


@pytest.fixture
def quality(user: Callable[..., User]) -> User:
    return user("Quality")


def begin(document: Document, user: User, workflow_type: WorkflowType = WorkflowType.REVIEW) -> DocumentWorkflow:
    workflow = DocumentWorkflow(document=document, workflow_type=workflow_type)
    start_workflow(workflow, user)
    return workflow


@pytest.fixture
def finish(user: Callable[..., User], quality: User) -> Callable[[DocumentWorkflow, User], None]:
    """Take a new workflow to its end."""

    def take(workflow: DocumentWorkflow, author: User) -> None:
        advance(workflow, "submit", author)
        advance(workflow, "review", user("Reviewers"))
        advance(workflow, "approve", user("Approvers"))
        advance(workflow, "release", quality, time=TIME)
        workflow.document.refresh_from_db()

    return take


def test_review_makes_the_version_effective(document: Document, author: User, finish: Callable[..., None]) -> None:
    workflow = begin(document, author)
    finish(workflow, author)
    document.refresh_from_db()
    assert workflow.state_id == "effective"
    assert (document.status, document.current_version) == (Document.Status.EFFECTIVE, workflow.version)
    assert (document.effective_date, document.review_date) == (date(2026, 1, 31), date(2028, 1, 31))


def test_review_date_falls_on_the_last_day_of_a_short_month(
    document: Document, author: User, finish: Callable[..., None]
) -> None:
    DocumentType.objects.filter(code="SOP").update(review_months=1)
    finish(begin(document, author), author)
    document.refresh_from_db()
    assert document.review_date == date(2026, 2, 28)


def test_release_supersedes_the_older_document(document: Document, author: User, finish: Callable[..., None]) -> None:
    finish(begin(document, author), author)
    newer = create_document(document.document_type, "Cleaning anew", author, supersedes=document)
    add_version(newer, ContentFile(b"newer", name="cleaning.txt"), author)
    finish(begin(newer, author), author)
    document.refresh_from_db()
    assert document.status == Document.Status.SUPERSEDED
    assert AuditEvent.objects.filter(action="document.superseded", object_key=[document.number]).exists()


def test_up_version_brings_the_next_version_into_effect(
    document: Document, author: User, finish: Callable[..., None]
) -> None:
    finish(begin(document, author), author)
    document.refresh_from_db()
    with pytest.raises(NotPossibleError, match=r"no version after 1\.0"):
        begin(document, author, WorkflowType.UP_VERSION)
    newer = add_version(document, ContentFile(b"newer", name="cleaning.txt"), author, is_major=True)
    finish(begin(document, author, WorkflowType.UP_VERSION), author)
    document.refresh_from_db()
    assert document.current_version == newer


@pytest.mark.parametrize(
    ("workflow_type", "status"), [(WorkflowType.OBSOLESCENCE, "obsolete"), (WorkflowType.TERMINATION, "terminated")]
)
def test_document_ends(
    document: Document, author: User, finish: Callable[..., None], workflow_type: WorkflowType, status: str
) -> None:
    finish(begin(document, author), author)
    document.refresh_from_db()
    finish(begin(document, author, workflow_type), author)
    document.refresh_from_db()
    assert document.status == status


def test_transition_is_a_signature(document: Document, author: User, user: Callable[..., User]) -> None:
    reviewer = user("Reviewers", first_name="Rosa", last_name="Ruiz")
    workflow = begin(document, author)
    advance(workflow, "submit", author)
    transition = advance(workflow, "review", reviewer, comment="Well done", time=TIME)
    transition.refresh_from_db()
    assert (transition.actor_name, transition.time, transition.meaning) == ("Rosa Ruiz", TIME, "Reviewed")
    assert (transition.sequence, transition.from_state_id, transition.to_state_id) == (2, "in_review", "in_approval")
    event = AuditEvent.objects.get(action="workflow.review")
    assert event.object_key == [document.number, "review", 1]
    assert event.details == {
        "from": "in_review",
        "to": "in_approval",
        "version": "1.0",
        "sha256": workflow.version.sha256,
        "meaning": "Reviewed",
        "comment": "Well done",
    }
    assert audit.verify().problems == []


def test_resubmission_is_about_the_latest_version(document: Document, author: User, user: Callable[..., User]) -> None:
    workflow = begin(document, author)
    advance(workflow, "submit", author)
    better = add_version(document, ContentFile(b"better", name="cleaning.txt"), author)
    assert DocumentWorkflow.objects.get().version != better
    advance(workflow, "return", user("Reviewers"))
    advance(workflow, "submit", author)
    assert DocumentWorkflow.objects.get().version == better


def test_author_does_not_approve_what_he_or_she_wrote(
    document: Document, author: User, user: Callable[..., User]
) -> None:
    author.groups.set(Group.objects.all())
    workflow = begin(document, author)
    advance(workflow, "submit", author)
    with pytest.raises(FourEyesError, match="somebody else has to review"):
        advance(workflow, "review", author)
    advance(workflow, "review", user("Reviewers"))
    with pytest.raises(FourEyesError, match="somebody else has to approve"):
        advance(workflow, "approve", author)
    workflow.refresh_from_db()
    assert workflow.state_id == "in_approval"


def test_author_of_the_version_does_not_approve_it_either(
    document: Document, author: User, user: Callable[..., User]
) -> None:
    writer = user("Authors", "Reviewers")
    add_version(document, ContentFile(b"newer", name="cleaning.txt"), writer)
    workflow = begin(document, author)
    advance(workflow, "submit", author)
    with pytest.raises(FourEyesError):
        advance(workflow, "review", writer)


def test_superuser_is_bound_by_four_eyes(document: Document, author: User) -> None:
    author.is_superuser = True
    author.save()
    workflow = begin(document, author)
    advance(workflow, "submit", author)
    with pytest.raises(FourEyesError):
        advance(workflow, "review", author)


@pytest.mark.parametrize(
    ("state", "action", "group"),
    [
        ("draft", "submit", "Authors"),
        ("draft", "submit", "Quality"),
        ("draft", "cancel", "Quality"),
        ("in_review", "review", "Reviewers"),
        ("in_review", "return", "Reviewers"),
        ("in_approval", "approve", "Approvers"),
        ("in_approval", "return", "Approvers"),
        ("approved", "release", "Quality"),
    ],
)
def test_step_needs_its_group(
    document: Document, author: User, user: Callable[..., User], state: str, action: str, group: str
) -> None:
    workflow = begin(document, author)
    DocumentWorkflow.objects.update(state=state)
    workflow.refresh_from_db()
    assert action in {step.action for step in possible_steps(workflow, user(group))}
    for stranger in (user(), user(group, is_active=False)):
        assert not possible_steps(workflow, stranger)
        with pytest.raises(NotPermittedError):
            advance(workflow, action, stranger)
    assert not WorkflowTransition.objects.exists()


def test_only_authors_and_quality_start_workflows(document: Document, user: Callable[..., User]) -> None:
    for group in ("Reviewers", "Approvers"):
        with pytest.raises(NotPermittedError):
            begin(document, user(group))
    begin(document, user("Quality"))


def test_step_that_the_machine_does_not_have_is_refused(document: Document, author: User, quality: User) -> None:
    workflow = begin(document, author)
    with pytest.raises(StepNotAllowedError, match="cannot release: it is in state draft"):
        advance(workflow, "release", quality)


def test_step_is_checked_against_what_is_stored(document: Document, author: User) -> None:
    workflow = begin(document, author)
    stale = DocumentWorkflow.objects.get(pk=workflow.pk)
    advance(workflow, "submit", author)
    with pytest.raises(StepNotAllowedError):
        advance(stale, "submit", author)


def test_one_workflow_runs_at_a_time(document: Document, author: User, quality: User) -> None:
    first = begin(document, author)
    with pytest.raises(NotPossibleError, match="still running"):
        begin(document, author)
    advance(first, "cancel", quality)
    second = begin(document, author)
    assert (second.sequence, second.natural_key()) == (2, (document.number, "review", 2))


def test_workflow_needs_a_version_and_a_fitting_status(document: Document, author: User) -> None:
    with pytest.raises(NotPossibleError, match="is draft: no obsolescence is possible"):
        begin(document, author, WorkflowType.OBSOLESCENCE)
    document.versions.all().delete()
    with pytest.raises(NotPossibleError, match="upload a file first"):
        begin(document, author)


def test_failed_step_leaves_nothing(document: Document, author: User, monkeypatch: pytest.MonkeyPatch) -> None:
    workflow = begin(document, author)
    events = AuditEvent.objects.count()

    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("the trail is not writable")

    monkeypatch.setattr(audit, "record", fail)
    with pytest.raises(RuntimeError):
        advance(workflow, "submit", author)
    workflow.refresh_from_db()
    assert workflow.state_id == "draft"
    assert not WorkflowTransition.objects.exists()
    assert AuditEvent.objects.count() == events


def test_transitions_are_never_changed_or_deleted(document: Document, author: User) -> None:
    workflow = begin(document, author)
    transition = advance(workflow, "submit", author)
    with pytest.raises(AppendOnlyError):
        transition.save()
    with pytest.raises(AppendOnlyError):
        WorkflowTransition.objects.all().delete()
    with pytest.raises(ProtectedError):
        workflow.delete()
    with pytest.raises(ProtectedError):
        document.delete()
