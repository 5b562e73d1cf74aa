"""Files that are not packages: fixtures as dumpdata writes them, and small ones of people and documents."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile
from pathlib import Path
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management import call_command

from documents.models import Document
from workflows.models import DocumentWorkflow

STYLES: dict[str, list[str]] = {
    "pk": [],
    "natural-foreign": ["--natural-foreign"],
    "natural-foreign+natural-primary": ["--natural-foreign", "--natural-primary"],
}


def compress(data: bytes, how: str) -> bytes:
    if how == "zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("fixture.json", data)
        return buffer.getvalue()
    return {"plain": bytes, "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[how](data)


def dump(path: Path, *arguments: str, form: str = "json", how: str = "plain") -> Path:
    """Write a fixture under a name that says nothing."""
    out = io.StringIO()
    call_command("dumpdata", *arguments, format=form, stdout=out)
    path.write_bytes(compress(out.getvalue().encode(), how))
    return path


def relations() -> dict[str, Any]:
    """What refers to what, in words that no primary key is among."""
    return {
        "authors": sorted(Document.objects.values_list("number", "author__username", "document_type__code")),
        "reviewers": [
            (document.number, [user.username for user in document.reviewers.order_by("username")])
            for document in Document.objects.order_by("number")
        ],
        "current": sorted(Document.objects.values_list("number", "current_version__major"), key=str),
        "workflows": sorted(DocumentWorkflow.objects.values_list("document__number", "initiator__username"), key=str),
        "groups": sorted(get_user_model().objects.values_list("username", "groups__name"), key=str),
        "managers": sorted(get_user_model().objects.values_list("username", "manager__username"), key=str),
    }


def findings(out: str) -> set[tuple[str, str]]:
    return {(one["severity"], one["code"]) for one in json.loads(out)["findings"]}


def write(path: Path, *objects: dict[str, Any]) -> Path:
    path.write_text(json.dumps(objects))
    return path


def user(name: str, pk: int | None, **fields: Any) -> dict[str, Any]:
    one = {"model": "core.user", "fields": {"username": name, "password": "!", **USER, **fields}}
    return one if pk is None else {**one, "pk": pk}


USER = {
    "last_login": None,
    "is_superuser": False,
    "first_name": "",
    "last_name": "",
    "email": "",
    "is_staff": False,
    "is_active": True,
    "date_joined": "2026-01-02T03:04:05.678Z",
    "employee_id": None,
    "department": "",
    "job_title": "",
    "manager": None,
    "groups": [],
    "user_permissions": [],
}
TYPE = {
    "model": "documents.documenttype",
    "pk": 900,
    "fields": {"code": "NEW", "name": "New", "description": "", "review_months": 3},
}


def document(number: str, pk: int, author: Any, **fields: Any) -> dict[str, Any]:
    values = {
        "number": number,
        "title": number,
        "document_type": 900,
        "status": "draft",
        "author": author,
        "reviewers": [],
        "supersedes": None,
        "current_version": None,
        "effective_date": None,
        "review_date": None,
        "metadata": {},
        "created": "2026-01-02T03:04:05.678Z",
        "modified": "2026-01-02T03:04:05.678Z",
    }
    return {"model": "documents.document", "pk": pk, "fields": {**values, **fields}}
