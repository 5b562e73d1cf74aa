"""What a freshly migrated system has. A table is filled when it is empty, and never touched again.

The receivers run in the middle of migrations too, so they take their models from the state that has been reached.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from django.apps import AppConfig
from django.apps import apps as installed_apps
from django.apps.registry import Apps
from django.contrib.auth.hashers import make_password
from django.db import DEFAULT_DB_ALIAS, models, router, transaction

_READ = [
    "core.view_user",
    "core.view_auditevent",
    "documents.view_documenttype",
    "documents.view_document",
    "documents.view_documentversion",
    "documents.view_documentreference",
    "workflows.view_workflowstate",
    "workflows.view_workflowtransitionrule",
    "workflows.view_documentworkflow",
    "workflows.view_workflowtransition",
]
GROUPS = {
    "Authors": [
        *_READ,
        "documents.add_document",
        "documents.change_document",
        "documents.add_documentversion",
        "documents.add_documentreference",
        "documents.change_documentreference",
        "documents.delete_documentreference",
        "workflows.add_documentworkflow",
        "workflows.submit_documentworkflow",
    ],
    "Reviewers": [*_READ, "workflows.review_documentworkflow"],
    "Approvers": [*_READ, "workflows.approve_documentworkflow"],
    "Quality": [
        *_READ,
        "documents.add_documenttype",
        "documents.change_documenttype",
        "documents.change_document",
        "workflows.add_documentworkflow",
        "workflows.change_documentworkflow",
        "workflows.submit_documentworkflow",
        "workflows.release_documentworkflow",
        "workflows.cancel_documentworkflow",
    ],
}


def empty_model(label: str, apps: Apps, using: str) -> type[models.Model] | None:
    """Return the model if its table exists in this database and holds no row."""
    try:
        model = apps.get_model(label)
    except LookupError:  # a migration to a state before it
        return None
    if not router.allow_migrate_model(using, model) or model._default_manager.using(using).exists():
        return None
    return model


def fill(label: str, rows: Sequence[Mapping[str, Any]], apps: Apps, using: str) -> bool:
    """Create the rows where the table is empty, and return whether it was."""
    model = empty_model(label, apps, using)
    if model is None:
        return False
    with transaction.atomic(using=using):
        model._default_manager.using(using).bulk_create([model(**row) for row in rows])
    return True


def create_users(
    *, using: str, verbosity: int = 1, stdout: TextIO | None = None, apps: Apps = installed_apps, **kwargs: object
) -> None:
    """Create ``admin``, with the password that the environment gives, and ``system``, which nobody can log in as."""
    password = os.environ.get("EDMS_ADMIN_PASSWORD") or None
    created = fill(
        "core.User",
        [
            {"username": "admin", "password": make_password(password), "is_staff": True, "is_superuser": True},
            {"username": "system", "password": make_password(None), "is_active": False},
        ],
        apps,
        using,
    )
    if created and password is None and verbosity >= 1:
        option = "" if using == DEFAULT_DB_ALIAS else f" --database {using}"
        (stdout or sys.stdout).write(
            f"The user admin has no password yet: set one with manage.py changepassword admin{option}\n"
        )


def create_groups(*, sender: AppConfig, using: str, apps: Apps = installed_apps, **kwargs: object) -> None:
    """Create the groups as soon as all the permissions that they have were created."""
    if sender.label not in {"core", "documents", "workflows"}:
        return
    group_model = empty_model("auth.Group", apps, using)
    if group_model is None:
        return
    keys = apps.get_model("auth.Permission")._default_manager.using(using)
    found = {
        f"{label}.{codename}": pk
        for pk, label, codename in keys.values_list("pk", "content_type__app_label", "codename")
    }
    if not all(name in found for names in GROUPS.values() for name in names):
        return
    with transaction.atomic(using=using):
        for group, names in GROUPS.items():
            created: Any = group_model._default_manager.using(using).create(name=group)
            created.permissions.set([found[name] for name in names])
