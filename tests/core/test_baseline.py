from __future__ import annotations

from io import StringIO

import pytest
from django.contrib.auth.models import Group, Permission
from django.core.management.sql import emit_post_migrate_signal

from core.baseline import GROUPS, create_users
from core.models import AuditEvent, User
from documents.models import DocumentType
from workflows.models import WorkflowState, WorkflowTransitionRule

pytestmark = pytest.mark.django_db


def migrate() -> None:
    emit_post_migrate_signal(verbosity=0, interactive=False, db="default")


@pytest.fixture
def no_users(db: None) -> None:
    User.objects.all().delete()


def test_fresh_system_has_two_users() -> None:
    admin, system = User.objects.order_by("username")
    assert (admin.username, admin.is_superuser, admin.is_active) == ("admin", True, True)
    assert (system.username, system.is_superuser, system.is_active) == ("system", False, False)
    assert not admin.has_usable_password()
    assert not system.has_usable_password()


def test_fresh_system_has_reference_data_and_no_events() -> None:
    assert set(Group.objects.values_list("name", flat=True)) == set(GROUPS)
    assert DocumentType.objects.filter(code="SOP").exists()
    assert WorkflowState.objects.filter(is_initial=True).count() == 1
    assert AuditEvent.objects.count() == 0


def test_groups_have_exactly_their_permissions() -> None:
    for name, permissions in GROUPS.items():
        granted = Permission.objects.filter(group__name=name)
        assert {f"{one.content_type.app_label}.{one.codename}" for one in granted} == set(permissions)


def test_every_rule_asks_for_a_permission_that_some_group_has() -> None:
    granted = {permission for permissions in GROUPS.values() for permission in permissions}
    assert set(WorkflowTransitionRule.objects.values_list("permission", flat=True)) <= granted


def test_every_state_leads_to_an_end() -> None:
    for state in WorkflowState.objects.all():
        leads_on = WorkflowTransitionRule.objects.filter(from_state=state).exists()
        assert leads_on is not state.is_final


def test_second_migration_changes_nothing() -> None:
    before = [list(model.objects.values()) for model in (User, Group, DocumentType, WorkflowState)]
    migrate()
    assert [list(model.objects.values()) for model in (User, Group, DocumentType, WorkflowState)] == before


def test_migration_does_not_undo_what_an_operator_did() -> None:
    User.objects.filter(username="admin").delete()
    Group.objects.get(name="Authors").permissions.clear()
    DocumentType.objects.filter(code="SOP").update(name="Procedure")
    WorkflowTransitionRule.objects.filter(action="cancel").delete()
    migrate()
    assert not User.objects.filter(username="admin").exists()
    assert not Group.objects.get(name="Authors").permissions.exists()
    assert DocumentType.objects.get(code="SOP").name == "Procedure"
    assert not WorkflowTransitionRule.objects.filter(action="cancel").exists()


@pytest.mark.django_db(transaction=True)
def test_emptied_system_gets_its_baseline_again() -> None:
    WorkflowTransitionRule.objects.all().delete()
    for model in (WorkflowState, DocumentType, User, Group, Permission):
        model.objects.all().delete()
    migrate()
    assert set(User.objects.values_list("username", flat=True)) == {"admin", "system"}
    assert Group.objects.get(name="Quality").permissions.count() == len(GROUPS["Quality"])
    assert WorkflowTransitionRule.objects.exists()


@pytest.mark.usefixtures("no_users")
def test_admin_gets_the_password_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDMS_ADMIN_PASSWORD", "only known to me")
    out = StringIO()
    create_users(using="default", stdout=out)
    assert User.objects.get(username="admin").check_password("only known to me")
    assert not User.objects.get(username="system").has_usable_password()
    assert out.getvalue() == ""


@pytest.mark.usefixtures("no_users")
def test_output_says_how_to_set_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDMS_ADMIN_PASSWORD", raising=False)
    out = StringIO()
    create_users(using="default", stdout=out)
    assert "manage.py changepassword admin\n" in out.getvalue()
