"""Reports and catalogue are there to read in the admin, and nobody edits them."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from backups.models import Backup, RestoreReport
from documents.models import Document
from tests.systems import System


@pytest.fixture
def client(seeded: System, client: Client) -> Client:
    Document.objects.filter(number="SOP-2026-0001").update(title="<b>edited</b>")
    assert seeded.run("validate_restore", "latest").code == 3
    client.force_login(get_user_model().objects.create_superuser("operator"))
    return client


def test_a_report_is_readable(client: Client) -> None:
    report = RestoreReport.objects.get(operation="validate")
    page = client.get(reverse("admin:backups_restorereport_change", args=[report.pk])).content.decode()
    for expected in ("differences", "value_differs", "&lt;b&gt;edited&lt;/b&gt;", "documents.document", report.package):
        assert expected in page
    assert "<b>edited" not in page
    assert 'type="submit"' not in page.split('id="content-main"')[1].split("</div>")[0]


def test_reports_are_listed_filtered_and_searched(client: Client) -> None:
    url = reverse("admin:backups_restorereport_changelist")
    assert "2 reports" in client.get(url).content.decode()
    assert "1 report" in client.get(url, {"operation__exact": "validate"}).content.decode()
    assert "1 report" in client.get(url, {"verdict__exact": "proved"}).content.decode()
    assert "0 reports" in client.get(url, {"q": "no-such-package"}).content.decode()


def test_packages_are_listed(client: Client) -> None:
    name = Backup.objects.get().name
    assert name in client.get(reverse("admin:backups_backup_changelist")).content.decode()


def test_packages_are_pinned_by_who_may(client: Client) -> None:
    backup, url = Backup.objects.get(), reverse("admin:backups_backup_changelist")
    for action, pinned in (("pin", True), ("unpin", False)):
        assert client.post(url, {"action": action, "_selected_action": [backup.pk]}).status_code == 302
        backup.refresh_from_db()
        assert backup.pinned is pinned

    reader = get_user_model().objects.create_user("reader", employee_id="E-READER", is_staff=True)
    reader.user_permissions.add(Permission.objects.get(codename="view_backup"))
    client.force_login(reader)
    client.post(url, {"action": "pin", "_selected_action": [backup.pk]})
    backup.refresh_from_db()
    assert not backup.pinned


@pytest.mark.parametrize("model", ["backup", "restorereport"])
def test_nobody_edits(client: Client, model: str) -> None:
    row = {"backup": Backup, "restorereport": RestoreReport}[model]._default_manager.first()
    assert row is not None
    assert client.get(reverse(f"admin:backups_{model}_add")).status_code == 403
    assert client.post(reverse(f"admin:backups_{model}_delete", args=[row.pk]), {"post": "yes"}).status_code == 403
    assert client.post(reverse(f"admin:backups_{model}_change", args=[row.pk]), {"note": "x"}).status_code == 403
