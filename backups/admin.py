"""Reports and catalogue, to read."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin import ModelAdmin
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from backups.models import Backup, RestoreReport
from backups.rendering import with_unit

FINDINGS_PER_PAGE = 100
COLOURS = {"proved": "#2e7d32", "differences": "#b26a00", "rolled_back": "#c62828", "failed": "#c62828"}
SEVERITIES = ("error", "warning", "info")


class ReadOnlyAdmin(ModelAdmin):  # type: ignore[type-arg]
    """Rows that people read and only the engine writes."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Backup)
class BackupAdmin(ReadOnlyAdmin):
    list_display = ("name", "kind", "created", "size_with_unit", "rows", "files", "note", "pinned")
    list_filter = ("kind", "pinned", "created")
    actions = ("pin", "unpin")
    search_fields = ("name", "package_id", "note")
    date_hierarchy = "created"

    @admin.display(description="size", ordering="size")
    def size_with_unit(self, backup: Backup) -> str:
        return with_unit(backup.size)

    def has_pin_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("backups.change_backup")

    @admin.action(description="Pin: not to be deleted", permissions=["pin"])
    def pin(self, request: HttpRequest, backups: QuerySet[Backup]) -> None:
        backups.update(pinned=True)

    @admin.action(description="Unpin", permissions=["pin"])
    def unpin(self, request: HttpRequest, backups: QuerySet[Backup]) -> None:
        backups.update(pinned=False)


@admin.register(RestoreReport)
class RestoreReportAdmin(ReadOnlyAdmin):
    list_display = ("operation", "outcome", "package", "database", "started", "duration", "errors", "account", "host")
    list_filter = ("operation", "verdict", "state", "started")
    search_fields = ("id", "package", "account", "host", "error")
    date_hierarchy = "started"
    change_form_template = "admin/backups/report.html"

    @admin.display(description="verdict", ordering="verdict")
    def outcome(self, report: RestoreReport) -> SafeString:
        text = report.verdict if report.state == RestoreReport.State.FINISHED else report.state
        return format_html('<b style="color: {}">{}</b>', COLOURS.get(text, "inherit"), text.replace("_", " "))

    @admin.display(description="seconds", ordering="seconds")
    def duration(self, report: RestoreReport) -> str:
        return f"{report.seconds:.1f}"

    @admin.display
    def errors(self, report: RestoreReport) -> int:
        return report.findings.filter(severity="error").count()

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        report = self.get_object(request, object_id)
        context: dict[str, Any] = {"title": "Report"}
        if report is not None:
            findings = sorted(report.findings.all(), key=lambda finding: SEVERITIES.index(finding.severity))
            page = Paginator(findings, FINDINGS_PER_PAGE).get_page(request.GET.get("p"))
            context |= {
                "report": report,
                "outcome": self.outcome(report),
                "models": report.models.all(),
                "findings": page,
                "file_counts": {name: count for name, count in report.files.items() if count},
            }
        return super().change_view(request, object_id, form_url, context | (extra_context or {}))
