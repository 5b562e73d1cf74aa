"""Starting workflows and advancing them, as the state machine allows.

WorkflowError
    NotPossibleError        the document is in no state for it, or another workflow is running
    StepNotAllowedError     the state machine has no such step from here
    NotPermittedError       the user has no permission
    FourEyesError           the user is the author
"""

from __future__ import annotations

import calendar
from collections.abc import Sequence
from datetime import date, datetime

from django.db import router, transaction
from django.db.models import QuerySet
from django.utils import timezone

from core import audit
from core.models import User
from documents.models import Document, DocumentVersion
from workflows.models import DocumentWorkflow, WorkflowState, WorkflowTransition, WorkflowTransitionRule, WorkflowType

Status = Document.Status
Effect = WorkflowTransitionRule.Effect

STARTS_FROM: dict[str, set[Document.Status]] = {
    WorkflowType.REVIEW: {Status.DRAFT},
    WorkflowType.UP_VERSION: {Status.EFFECTIVE},
    WorkflowType.OBSOLESCENCE: {Status.EFFECTIVE, Status.SUPERSEDED},
    WorkflowType.TERMINATION: {Status.DRAFT, Status.EFFECTIVE, Status.SUPERSEDED},
}
"""The status that a document must have for a workflow to begin."""

STATUS_AFTER: dict[str, Document.Status] = {
    Effect.RELEASE: Status.EFFECTIVE,
    Effect.OBSOLETE: Status.OBSOLETE,
    Effect.TERMINATE: Status.TERMINATED,
}


class WorkflowError(Exception):
    """A workflow cannot do what was asked."""


class NotPossibleError(WorkflowError):
    pass


class StepNotAllowedError(WorkflowError):
    pass


class NotPermittedError(WorkflowError):
    pass


class FourEyesError(WorkflowError):
    pass


def start_workflow(workflow: DocumentWorkflow, user: User, *, time: datetime | None = None) -> None:
    """Save a new workflow about the latest version of its document. Raises ``WorkflowError``.

    The caller sets document and type, and where it likes assignee, due date and reason.
    """
    using = router.db_for_write(DocumentWorkflow, instance=workflow.document)
    if not user.has_perm("workflows.add_documentworkflow"):
        raise NotPermittedError(f"{user} has no permission to start a workflow")
    with transaction.atomic(using=using):
        document = workflow.document
        document.refresh_from_db(from_queryset=Document.objects.using(using).select_for_update())
        workflow.version = check_start(document, workflow.workflow_type)
        earlier = DocumentWorkflow.objects.using(using).filter(document=document, workflow_type=workflow.workflow_type)
        workflow.sequence = earlier.count() + 1
        workflow.state = WorkflowState.objects.using(using).get(is_initial=True)
        workflow.initiator = user
        workflow.created = time or timezone.now()
        workflow.save(using=using)
        details = {"version": workflow.version.label}
        audit.record("workflow.started", actor=user, target=workflow, details=details, time=time, using=using)


def check_start(document: Document, workflow_type: str) -> DocumentVersion:
    """Return the version that a new workflow would be about. Raises ``NotPossibleError``."""
    name = WorkflowType(workflow_type).label.lower()
    if document.status not in STARTS_FROM[workflow_type]:
        raise NotPossibleError(f"{document.number} is {document.status}: no {name} is possible")
    version = _latest_version(document)
    if workflow_type == WorkflowType.UP_VERSION and version == document.current_version:
        raise NotPossibleError(f"{document.number} has no version after {version.label}; hint: upload a file first")
    workflows = DocumentWorkflow.objects.using(document._state.db).filter(document=document)
    if running := workflows.filter(state__is_final=False).first():
        raise NotPossibleError(f"{running} is still running")
    return version


def advance(
    workflow: DocumentWorkflow, action: str, user: User, *, comment: str = "", time: datetime | None = None
) -> WorkflowTransition:
    """Take one step, signed by the user, and do to the document what its rule says. Raises ``WorkflowError``."""
    using = router.db_for_write(DocumentWorkflow, instance=workflow)
    time = time or timezone.now()
    with transaction.atomic(using=using):
        workflow.refresh_from_db(from_queryset=DocumentWorkflow.objects.using(using).select_for_update())
        rule = _rules(workflow).filter(action=action).first()
        if rule is None:
            raise StepNotAllowedError(f"{workflow} cannot {action}: it is in state {workflow.state_id}")
        _check(rule, workflow, user)
        transition = WorkflowTransition(
            workflow=workflow,
            sequence=workflow.transitions.count() + 1,
            action=action,
            from_state=rule.from_state,
            to_state=rule.to_state,
            actor=user,
            actor_name=user.get_full_name() or user.get_username(),
            time=time,
            meaning=rule.meaning,
            comment=comment,
        )
        transition.save(using=using)
        workflow.state = rule.to_state
        if rule.from_state.is_initial:  # whoever got it back may have uploaded a better version
            workflow.version = _latest_version(workflow.document)
        workflow.save(using=using, update_fields=["state", "version", "modified"])
        details = {
            "from": rule.from_state_id,
            "to": rule.to_state_id,
            "version": workflow.version.label,
            "sha256": workflow.version.sha256,
            "meaning": rule.meaning,
            "comment": comment,
        }
        audit.record(f"workflow.{action}", actor=user, target=workflow, details=details, time=time, using=using)
        _apply(rule.effect, workflow, user, time, using)
    return transition


def possible_steps(workflow: DocumentWorkflow, user: User) -> Sequence[WorkflowTransitionRule]:
    """Return the rules by which this user may advance the workflow now."""
    steps = []
    for rule in _rules(workflow):
        try:
            _check(rule, workflow, user)
        except WorkflowError:
            continue
        steps.append(rule)
    return steps


def _latest_version(document: Document) -> DocumentVersion:
    version = document.latest_version
    if version is None:
        raise NotPossibleError(f"{document.number} has no version; hint: upload a file first")
    return version


def _rules(workflow: DocumentWorkflow) -> QuerySet[WorkflowTransitionRule]:
    rules = WorkflowTransitionRule.objects.using(workflow._state.db)
    return rules.filter(workflow_type=workflow.workflow_type, from_state=workflow.state_id)


def _check(rule: WorkflowTransitionRule, workflow: DocumentWorkflow, user: User) -> None:
    if not user.has_perm(rule.permission):
        raise NotPermittedError(f"{user} has no permission to {rule.action} {workflow}")
    if rule.four_eyes and user.pk in {workflow.document.author_id, workflow.version.author_id}:
        raise FourEyesError(f"{user} wrote {workflow.document.number}: somebody else has to {rule.action} it")


def _apply(effect: str, workflow: DocumentWorkflow, user: User, time: datetime, using: str) -> None:
    if not effect:
        return
    document = workflow.document
    if effect == Effect.RELEASE:
        document.current_version = workflow.version
        document.effective_date = time.date()
        document.review_date = _months_later(time.date(), document.document_type.review_months)
        if document.supersedes and document.supersedes.status == Status.EFFECTIVE:
            _set_status(document.supersedes, Status.SUPERSEDED, user, time, using)
    _set_status(document, STATUS_AFTER[effect], user, time, using)


def _set_status(document: Document, status: Status, user: User, time: datetime, using: str) -> None:
    document.status = status
    document.save(using=using, update_fields=["status", "current_version", "effective_date", "review_date", "modified"])
    audit.record(f"document.{status}", actor=user, target=document, time=time, using=using)


def _months_later(day: date, months: int) -> date:
    years, month = divmod(day.month - 1 + months, 12)
    year, month = day.year + years, month + 1
    return date(year, month, min(day.day, calendar.monthrange(year, month)[1]))
