"""Documents and versions, with the audit events that belong to them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.core.files.base import File
from django.db import router, transaction
from django.utils import timezone

from core import audit
from core.models import User
from documents.models import Document, DocumentType, DocumentVersion


def create_document(
    document_type: DocumentType,
    title: str,
    author: User,
    *,
    supersedes: Document | None = None,
    metadata: Mapping[str, Any] | None = None,
    time: datetime | None = None,
) -> Document:
    """Create a document with the next number of its type and of the year."""
    using = router.db_for_write(Document, instance=document_type)
    with transaction.atomic(using=using):
        document = Document(
            document_type=document_type,
            title=title,
            author=author,
            supersedes=supersedes,
            metadata=dict(metadata or {}),
            created=time or timezone.now(),
        )
        document.save(using=using)
        audit.record(
            "document.created", actor=author, target=document, details={"title": title}, time=time, using=using
        )
    return document


def add_version(
    document: Document,
    file: File[bytes],
    author: User,
    *,
    change_summary: str = "",
    is_major: bool = False,
    time: datetime | None = None,
) -> DocumentVersion:
    """Store a file as the document's next version: 1.0, then 1.1, or 2.0 if it is a major one."""
    using = router.db_for_write(DocumentVersion, instance=document)
    with transaction.atomic(using=using):
        # One upload at a time, so that two never get the same version.
        Document.objects.using(using).select_for_update().get(pk=document.pk)
        latest = document.latest_version
        if latest is None or is_major:
            major, minor = (latest.major + 1 if latest else 1), 0
        else:
            major, minor = latest.major, latest.minor + 1
        version = DocumentVersion(
            document=document,
            major=major,
            minor=minor,
            file=file,
            change_summary=change_summary,
            author=author,
            created=time or timezone.now(),
        )
        version.save(using=using)
        details = {"file": version.file.name, "size": version.size, "sha256": version.sha256}
        audit.record("document.version_added", actor=author, target=version, details=details, time=time, using=using)
    return version
