from __future__ import annotations

from pathlib import PurePath

from django.contrib.auth.decorators import login_required, permission_required
from django.http import FileResponse, HttpRequest
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_safe

from documents.models import DocumentVersion


@require_safe
@login_required
@permission_required("documents.view_documentversion", raise_exception=True)
def download(request: HttpRequest, pk: int) -> FileResponse:
    """Send a version's file, always as a download: what users upload is not shown on the site's own origin."""
    version = get_object_or_404(DocumentVersion, pk=pk)
    name = f"{version.document.number} v{version.label} {PurePath(str(version.file)).name}"
    return FileResponse(version.file.open(), as_attachment=True, filename=name)
