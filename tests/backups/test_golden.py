"""A package of an earlier release, kept in the repository, restores on every engine and means the same everywhere."""

from __future__ import annotations

import hashlib
from pathlib import Path

from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import check_password

from backups.package.reader import PackageReader
from documents.models import Document, DocumentVersion
from tests.backups.conftest import TRAIL
from tests.systems import System
from workflows.models import DocumentWorkflow

GOLDEN = Path(__file__).parent.parent / "golden" / "edms-package-1.zip"


def digests(package: Path) -> dict[str, str]:
    with PackageReader(package) as reader:
        return {model.label: model.digest for model in reader.manifest.models if model.label not in TRAIL}


def test_the_golden_package_is_restored_and_its_content_is_the_same_on_every_engine(system: System) -> None:
    restored = system.run("restore_backup", str(GOLDEN))

    assert (restored.code, restored.err) == (0, "")
    assert get_user_model().objects.count() == 10
    assert Document.objects.count() == 5
    assert DocumentWorkflow.objects.count() == 4
    # Not the user's own method, which would hash the password anew.
    assert check_password("correct horse battery staple", get_user_model().objects.get(username="alice").password)
    document = Document.objects.get(number="SOP-2026-0001")
    assert document.title == "Cleaning of vessels"
    assert document.author.username == "alice"
    assert document.created.isoformat() == "2026-01-21T18:33:00.123465+00:00"
    for version in DocumentVersion.objects.all():
        with version.file.open() as file:
            assert hashlib.sha256(file.read()).hexdigest() == version.sha256
    assert system.run("verify_audit_trail").code == 0
    validated = system.run("validate_restore", str(GOLDEN))
    assert validated.code == 0, validated.out

    assert system.run("create_backup").code == 0
    (own,) = system.packages.glob("backup-*.zip")
    assert digests(own) == digests(GOLDEN)
