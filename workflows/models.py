from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone

from core.append_only import AppendOnlyModel
from core.natural_keys import NaturalKeyModel
from documents.models import Document, DocumentVersion


class WorkflowType(models.TextChoices):
    REVIEW = "review"
    UP_VERSION = "up_version", "Up-version"
    OBSOLESCENCE = "obsolescence"
    TERMINATION = "termination"


class WorkflowState(models.Model):
    """A state of the machine. Its code is its primary key, and with that its identity in every database."""

    code = models.SlugField(max_length=32, primary_key=True)
    name = models.CharField(max_length=100)
    description = models.TextField(blank=True)
    position = models.PositiveSmallIntegerField(default=0)
    is_initial = models.BooleanField(default=False, help_text="New workflows begin here.")
    is_final = models.BooleanField(default=False, help_text="Workflows end here.")

    class Meta:
        ordering = ["position", "code"]

    def __str__(self) -> str:
        return self.name


class WorkflowTransitionRule(NaturalKeyModel):
    """One step that the state machine allows."""

    class Effect(models.TextChoices):
        """What a step does to the document."""

        NONE = "", "nothing"
        RELEASE = "release", "makes the version effective"
        OBSOLETE = "obsolete", "makes the document obsolete"
        TERMINATE = "terminate", "terminates the document"

    workflow_type = models.CharField(max_length=16, choices=WorkflowType)
    from_state = models.ForeignKey(WorkflowState, models.PROTECT, related_name="+")
    action = models.SlugField(max_length=32)
    to_state = models.ForeignKey(WorkflowState, models.PROTECT, related_name="+")
    permission = models.CharField(
        max_length=100, help_text="Who may do it, such as workflows.approve_documentworkflow."
    )
    four_eyes = models.BooleanField(default=False, help_text="Not by the author of the document or of the version.")
    meaning = models.CharField(
        max_length=100, blank=True, help_text="What the signature says. Empty: the step is not signed."
    )
    effect = models.CharField(max_length=16, choices=Effect, blank=True, default=Effect.NONE)

    natural_key_fields = ("workflow_type", "from_state__code", "action")

    class Meta:
        ordering = ["workflow_type", "from_state", "action"]
        constraints = [
            models.UniqueConstraint(
                fields=["workflow_type", "from_state", "action"], name="workflowtransitionrule_step"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_workflow_type_display()}: {self.from_state_id} → {self.action} → {self.to_state_id}"


class DocumentWorkflow(NaturalKeyModel):
    document = models.ForeignKey(Document, models.PROTECT, related_name="workflows")
    workflow_type = models.CharField(max_length=16, choices=WorkflowType)
    sequence = models.PositiveSmallIntegerField(editable=False, help_text="Counts a document's workflows of one type.")
    version = models.ForeignKey(DocumentVersion, models.PROTECT, related_name="workflows", editable=False)
    state = models.ForeignKey(WorkflowState, models.PROTECT, related_name="workflows", editable=False)
    initiator = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+", editable=False)
    assignee = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="assigned_workflows"
    )
    due_date = models.DateField(null=True, blank=True)
    reason = models.TextField(blank=True)
    created = models.DateTimeField(default=timezone.now, editable=False)
    modified = models.DateTimeField(auto_now=True)

    natural_key_fields = ("document__number", "workflow_type", "sequence")

    class Meta:
        ordering = ["-created", "-id"]
        constraints = [
            models.UniqueConstraint(fields=["document", "workflow_type", "sequence"], name="documentworkflow_sequence"),
        ]
        permissions = [
            ("submit_documentworkflow", "Can submit, withdraw and resume a workflow"),
            ("review_documentworkflow", "Can sign a review"),
            ("approve_documentworkflow", "Can sign an approval"),
            ("release_documentworkflow", "Can release the result of a workflow"),
            ("cancel_documentworkflow", "Can cancel a workflow"),
        ]

    def __str__(self) -> str:
        return f"{self.document.number} {self.get_workflow_type_display().lower()} {self.sequence}"


class WorkflowTransition(AppendOnlyModel):
    """One step that was taken, with its electronic signature: who, when, and what the signature means."""

    workflow = models.ForeignKey(DocumentWorkflow, models.PROTECT, related_name="transitions")
    sequence = models.PositiveIntegerField()
    action = models.CharField(max_length=32)
    from_state = models.ForeignKey(WorkflowState, models.PROTECT, related_name="+")
    to_state = models.ForeignKey(WorkflowState, models.PROTECT, related_name="+")
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="workflow_transitions")
    actor_name = models.CharField(max_length=301, help_text="The name as it was then.")
    time = models.DateTimeField(default=timezone.now, db_index=True)
    meaning = models.CharField(max_length=100, blank=True)
    comment = models.TextField(blank=True)

    natural_key_fields = (
        "workflow__document__number",
        "workflow__workflow_type",
        "workflow__sequence",
        "sequence",
    )

    class Meta:
        ordering = ["workflow", "sequence"]
        constraints = [
            models.UniqueConstraint(fields=["workflow", "sequence"], name="workflowtransition_sequence"),
        ]

    def __str__(self) -> str:
        return f"{self.workflow} #{self.sequence} {self.action}"
