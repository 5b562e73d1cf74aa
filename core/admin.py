from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.db.models import Model
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from core import audit
from core.models import AuditEvent, User

if TYPE_CHECKING:  # Django's own classes take type arguments in their stubs only
    ModelAdmin = admin.ModelAdmin[Any]
    BaseUserAdmin = DjangoUserAdmin[User]
    TabularInline = admin.TabularInline[Any, Any]
else:
    ModelAdmin, BaseUserAdmin, TabularInline = admin.ModelAdmin, DjangoUserAdmin, admin.TabularInline

admin.site.site_header = admin.site.site_title = "Document management"
admin.site.index_title = "Documents, workflows and people"


class AuditedAdmin(ModelAdmin):
    """Writes what is done here to the audit trail, and shows that as the history, instead of Django's admin log."""

    def log_addition(self, request: HttpRequest, obj: Model, message: Any) -> Any:
        _record(request, obj, "created", {"changes": message})

    def log_change(self, request: HttpRequest, obj: Model, message: Any) -> Any:
        _record(request, obj, "changed", {"changes": message})

    def log_deletions(self, request: HttpRequest, queryset: Iterable[Model]) -> Any:
        for obj in queryset:
            _record(request, obj, "deleted", {"name": str(obj)})

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        query = urlencode({"object_type": self.opts.label_lower, "object_id": object_id})
        return HttpResponseRedirect(f"{reverse('admin:core_auditevent_changelist')}?{query}")


class ReadOnlyAdmin(ModelAdmin):
    """Shows rows that only services write."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class ReadOnlyInline(TabularInline):
    extra = 0
    can_delete = False
    show_change_link = True

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return self.fields

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(User)
class UserAdmin(AuditedAdmin, BaseUserAdmin):
    list_display = ["username", "first_name", "last_name", "employee_id", "department", "job_title", "is_active"]
    list_filter = ["is_active", "is_staff", "is_superuser", "groups", "department"]
    search_fields = ["username", "first_name", "last_name", "email", "employee_id"]
    autocomplete_fields = ["manager"]
    fieldsets = [
        *(DjangoUserAdmin.fieldsets or ()),
        ("Employment", {"fields": ["employee_id", "department", "job_title", "manager"]}),
    ]


admin.site.unregister(Group)


@admin.register(Group)
class GroupAdmin(AuditedAdmin, DjangoGroupAdmin):
    pass


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    list_display = ["time", "actor_name", "action", "object_type", "linked_object"]
    list_display_links = ["time"]
    list_filter = ["time", "action", "object_type"]
    search_fields = ["actor_name", "action", "object_key", "hash"]
    date_hierarchy = "time"
    fields = ["time", "actor_name", "action", "object_type", "linked_object", "readable_details", "hash", "previous"]

    @admin.display(description="object")
    def linked_object(self, event: AuditEvent) -> str | SafeString:
        """The object's natural key, linked to its page where it has one."""
        name = " ".join(map(str, event.object_key))
        model = event.content_type.model_class() if event.content_type else None
        if model is None or not self.admin_site.is_registered(model):
            return name
        url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_change", args=[event.object_id])
        return format_html('<a href="{}">{}</a>', url, name)

    @admin.display(description="details")
    def readable_details(self, event: AuditEvent) -> SafeString:
        return format_html("<pre>{}</pre>", json.dumps(event.details, indent=2, ensure_ascii=False))


def acting_user(request: HttpRequest) -> User:
    """Return who is logged in: nobody else gets into the admin."""
    return cast("User", request.user)


def _record(request: HttpRequest, obj: Model, verb: str, details: dict[str, Any]) -> None:
    audit.record(f"{obj._meta.model_name}.{verb}", actor=acting_user(request), target=obj, details=details)
