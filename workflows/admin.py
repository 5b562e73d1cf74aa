from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Model
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse

from core.admin import AuditedAdmin, ReadOnlyAdmin, ReadOnlyInline, acting_user
from workflows.models import DocumentWorkflow, WorkflowState, WorkflowTransition, WorkflowTransitionRule
from workflows.services import WorkflowError, advance, check_start, possible_steps, start_workflow

if TYPE_CHECKING:
    ModelForm = forms.ModelForm[DocumentWorkflow]
else:
    ModelForm = forms.ModelForm


class StartForm(ModelForm):
    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if not self.instance.pk and {"document", "workflow_type"} <= data.keys():
            try:
                check_start(data["document"], data["workflow_type"])
            except WorkflowError as error:
                raise ValidationError(str(error)) from error
        return data


class StepForm(forms.Form):
    """What goes with a step. The password confirms that a signature is the signer's own."""

    comment = forms.CharField(widget=forms.Textarea(attrs={"rows": 2}), required=False)
    password = forms.CharField(
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
        required=False,
        strip=False,
        help_text="Your own, to sign with.",
    )


class TransitionInline(ReadOnlyInline):
    model = WorkflowTransition
    fields = ["sequence", "time", "action", "from_state", "to_state", "actor_name", "meaning", "comment"]


@admin.register(DocumentWorkflow)
class DocumentWorkflowAdmin(AuditedAdmin):
    form = StartForm
    list_display = ["document", "workflow_type", "state", "version", "assignee", "due_date", "modified"]
    list_filter = ["state", "workflow_type", "due_date", "document__document_type"]
    list_select_related = ["document", "state", "version__document", "assignee"]
    search_fields = ["document__number", "document__title", "assignee__username", "reason"]
    date_hierarchy = "created"
    autocomplete_fields = ["document", "assignee"]
    inlines = [TransitionInline]
    add_fields = ["document", "workflow_type", "assignee", "due_date", "reason"]
    fixed_fields = ["document", "workflow_type", "sequence", "version", "state", "initiator", "created", "modified"]

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return [*self.fixed_fields, "assignee", "due_date", "reason"] if obj else self.add_fields

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        return self.fixed_fields if obj else []

    def save_model(self, request: HttpRequest, obj: DocumentWorkflow, form: Any, change: bool) -> None:
        if change:
            super().save_model(request, obj, form, change)
        else:
            start_workflow(obj, acting_user(request))

    def log_addition(self, request: HttpRequest, obj: Model, message: Any) -> Any:
        """Nothing: the service has recorded it."""

    def get_urls(self) -> list[URLPattern]:
        step = path(
            "<path:object_id>/advance/",
            self.admin_site.admin_view(self.advance_view),
            name="workflows_documentworkflow_advance",
        )
        return [step, *super().get_urls()]

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        if workflow := kwargs.get("obj"):
            context |= {"steps": possible_steps(workflow, acting_user(request)), "step_form": StepForm()}
        return super().render_change_form(request, context, *args, **kwargs)

    def advance_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Take the step whose button was pressed."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        workflow = get_object_or_404(DocumentWorkflow, pk=object_id)
        if not self.has_view_permission(request, workflow):
            raise PermissionDenied
        user, action = acting_user(request), request.POST.get("action", "")
        form = StepForm(request.POST)
        form.is_valid()
        signed = any(step.action == action and step.meaning for step in possible_steps(workflow, user))
        if signed and not user.check_password(form.cleaned_data["password"]):
            self.message_user(request, "Your password is not right: the step was not signed.", messages.ERROR)
        else:
            try:
                advance(workflow, action, user, comment=form.cleaned_data["comment"])
            except WorkflowError as error:
                self.message_user(request, str(error), messages.ERROR)
            else:
                self.message_user(request, f"{workflow} is now: {workflow.state}.", messages.SUCCESS)
        return HttpResponseRedirect(reverse("admin:workflows_documentworkflow_change", args=[workflow.pk]))


@admin.register(WorkflowTransition)
class WorkflowTransitionAdmin(ReadOnlyAdmin):
    list_display = ["workflow", "sequence", "time", "action", "from_state", "to_state", "actor_name", "meaning"]
    list_filter = ["time", "action", "meaning", "workflow__workflow_type"]
    list_select_related = ["workflow__document", "from_state", "to_state"]
    search_fields = ["workflow__document__number", "actor_name", "actor__username", "comment"]
    date_hierarchy = "time"


@admin.register(WorkflowState)
class WorkflowStateAdmin(AuditedAdmin):
    list_display = ["code", "name", "position", "is_initial", "is_final"]
    search_fields = ["code", "name"]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        """The code is the primary key, and stays."""
        return ["code"] if obj else []


@admin.register(WorkflowTransitionRule)
class WorkflowTransitionRuleAdmin(AuditedAdmin):
    list_display = ["workflow_type", "from_state", "action", "to_state", "permission", "four_eyes", "meaning", "effect"]
    list_display_links = ["action"]
    list_filter = ["workflow_type", "from_state", "to_state", "four_eyes"]
    list_select_related = ["from_state", "to_state"]
    search_fields = ["action", "permission", "meaning"]
    autocomplete_fields = ["from_state", "to_state"]
