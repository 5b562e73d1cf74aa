from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from core.admin import AuditedAdmin, ReadOnlyAdmin, ReadOnlyInline, TabularInline, acting_user
from documents.models import Document, DocumentReference, DocumentType, DocumentVersion, NumberSequence
from documents.services import add_version


class UploadForm(forms.Form):
    """A new version of a document."""

    file = forms.FileField()
    change_summary = forms.CharField(widget=forms.Textarea(attrs={"rows": 2}), required=False)
    is_major = forms.BooleanField(label="Major version", required=False)


class VersionInline(ReadOnlyInline):
    model = DocumentVersion
    fields = ["label", "download", "size", "change_summary", "author", "created"]

    @admin.display(description="file")
    def download(self, version: DocumentVersion) -> SafeString:
        return _download_link(version)


class ReferenceInline(TabularInline):
    model = DocumentReference
    fk_name = "citing"
    extra = 0
    autocomplete_fields = ["cited"]
    verbose_name_plural = "references to other documents"


class CitedByInline(ReadOnlyInline):
    model = DocumentReference
    fk_name = "cited"
    fields = ["citing", "kind", "note"]
    verbose_name_plural = "references from other documents"


@admin.register(Document)
class DocumentAdmin(AuditedAdmin):
    list_display = ["number", "title", "document_type", "status", "version", "author", "effective_date", "review_date"]
    list_filter = ["status", "document_type", "effective_date", "review_date"]
    list_select_related = ["document_type", "current_version", "author"]
    search_fields = ["number", "title", "author__username", "author__last_name"]
    date_hierarchy = "created"
    autocomplete_fields = ["document_type", "author", "reviewers", "supersedes"]
    readonly_fields = ["number", "status", "current_version", "effective_date", "created", "modified"]
    inlines = [VersionInline, ReferenceInline, CitedByInline]
    fieldsets = [
        (None, {"fields": ["number", "title", "document_type", "author", "reviewers", "supersedes"]}),
        ("Status", {"fields": ["status", "current_version", "effective_date", "review_date"]}),
        ("More", {"classes": ["collapse"], "fields": ["metadata", "created", "modified"]}),
    ]

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        return {"author": request.user.pk, **super().get_changeform_initial_data(request)}

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        """The type is part of the number, and stays."""
        return [*self.readonly_fields, "document_type"] if obj else self.readonly_fields

    def get_urls(self) -> list[URLPattern]:
        upload = path(
            "<path:object_id>/upload/", self.admin_site.admin_view(self.upload_view), name="documents_document_upload"
        )
        return [upload, *super().get_urls()]

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        if kwargs.get("change") and request.user.has_perm("documents.add_documentversion"):
            context["upload_form"] = UploadForm()
        return super().render_change_form(request, context, *args, **kwargs)

    def upload_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Store an uploaded file as the document's next version."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        document = get_object_or_404(Document, pk=object_id)
        if not request.user.has_perm("documents.add_documentversion"):
            raise PermissionDenied
        form = UploadForm(request.POST, request.FILES)
        if form.is_valid():
            version = add_version(document, author=acting_user(request), **form.cleaned_data)
            self.message_user(request, f"Version {version.label} was added.", messages.SUCCESS)
        else:
            for field, errors in form.errors.items():
                self.message_user(request, f"{field}: {' '.join(map(str, errors))}", messages.ERROR)
        return HttpResponseRedirect(reverse("admin:documents_document_change", args=[document.pk]))

    @admin.display(description="version", ordering="current_version")
    def version(self, document: Document) -> str:
        return document.current_version.label if document.current_version else ""


@admin.register(DocumentType)
class DocumentTypeAdmin(AuditedAdmin):
    list_display = ["code", "name", "review_months"]
    search_fields = ["code", "name"]


@admin.register(DocumentVersion)
class DocumentVersionAdmin(ReadOnlyAdmin):
    list_display = ["document", "label", "download", "size", "author", "created"]
    list_filter = ["created", "document__document_type"]
    list_select_related = ["document", "author"]
    search_fields = ["document__number", "document__title", "sha256", "change_summary"]
    date_hierarchy = "created"
    fields = ["document", "label", "download", "size", "sha256", "change_summary", "author", "created"]

    @admin.display(description="file")
    def download(self, version: DocumentVersion) -> SafeString:
        return _download_link(version)


@admin.register(DocumentReference)
class DocumentReferenceAdmin(AuditedAdmin):
    list_display = ["citing", "kind", "cited", "note"]
    list_filter = ["kind"]
    list_select_related = ["citing", "cited"]
    search_fields = ["citing__number", "cited__number", "note"]
    autocomplete_fields = ["citing", "cited"]


@admin.register(NumberSequence)
class NumberSequenceAdmin(ReadOnlyAdmin):
    list_display = ["document_type", "year", "last"]
    list_filter = ["document_type", "year"]


def _download_link(version: DocumentVersion) -> SafeString:
    return format_html('<a href="{}">{}</a>', reverse("documents:download", args=[version.pk]), version.file.name)
