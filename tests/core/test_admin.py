from __future__ import annotations

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.test import Client
from django.urls import reverse
from model_bakery import baker

from core import audit
from core.models import AuditEvent, User

pytestmark = pytest.mark.django_db


def test_every_page_opens(admin_client: Client) -> None:
    call_command("seed_demo", verbosity=0)
    for model in admin.site._registry:
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        assert admin_client.get(reverse(f"{name}_changelist"), {"q": "clean"}).status_code == 200
        assert admin_client.get(reverse(f"{name}_add")).status_code in {200, 403}
        if row := model._default_manager.first():
            assert admin_client.get(reverse(f"{name}_change", args=[row.pk])).status_code == 200


def test_change_of_a_user_is_recorded_without_the_password(admin_client: Client, admin_user: User) -> None:
    user = baker.make(User, username="nina")
    response = admin_client.post(
        reverse("admin:auth_user_password_change", args=[user.pk]),
        {"password1": "a very long one", "password2": "a very long one"},
    )
    assert response.status_code == 302
    user.refresh_from_db()
    assert user.check_password("a very long one")
    event = AuditEvent.objects.get()
    assert (event.action, event.actor, event.target) == ("user.changed", admin_user, user)
    assert "a very long one" not in str(event.details)


def test_change_of_a_group_is_recorded(admin_client: Client) -> None:
    group = Group.objects.get(name="Authors")
    admin_client.post(reverse("admin:auth_group_change", args=[group.pk]), {"name": "Writers"})
    assert AuditEvent.objects.get().object_key == ["Writers"]


def test_event_leads_to_its_object(admin_client: Client) -> None:
    event = audit.record("user.seen", target=baker.make(User, username="nina"), details={"where": "Genève"})
    page = admin_client.get(reverse("admin:core_auditevent_change", args=[event.pk])).content.decode()
    assert f'<a href="/admin/core/user/{event.object_id}/change/">nina</a>' in page
    assert "Genève" in page
