"""A package of an earlier release, kept in the repository, restores on every engine and means the same everywhere."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import check_password

from backups.package.reader import PackageReader
from documents.models import Document, DocumentVersion
from tests.backups.conftest import TRAIL, nothing_changes
from tests.systems import System
from workflows.models import DocumentWorkflow

GOLDEN = Path(__file__).parent.parent / "golden" / "edms-package-1.zip"
SIGNED = GOLDEN.with_name("edms-package-1-signed.zip")
ENCRYPTED = GOLDEN.with_name("edms-package-1-signed.zip.age")
LOCKED = GOLDEN.with_name("edms-package-1-passphrase.zip.age")
KEYS = GOLDEN.with_name("keys")


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


def test_golden_signed_and_encrypted_packages_are_restored(
    lite: System, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = ["--identity", str(KEYS / "identity.txt")]
    monkeypatch.setenv("BACKUPS_PASSPHRASE", "correct horse battery staple")
    assert lite.run("restore_backup", str(LOCKED)).code == 0
    settings.BACKUPS = settings.BACKUPS | {"TRUSTED_KEYS": [(KEYS / "signing_key.pub").read_text()]}
    for package, arguments in ((SIGNED, []), (ENCRYPTED, identity)):
        restored = lite.run("restore_backup", str(package), *arguments)
        assert (restored.code, restored.err) == (0, "")
        inspected = lite.run("inspect_backup", str(package), *arguments)
        assert "(golden@edms): trusted" in inspected.out
    assert lite.run("validate_restore", str(SIGNED)).code == 0
    with nothing_changes(lite):
        for package in (GOLDEN, LOCKED):
            assert lite.run("restore_backup", str(package)).code == 4
        assert lite.run("restore_backup", str(ENCRYPTED)).code == 4


def test_the_age_command_opens_a_golden_package_and_makes_one_that_is_restored(lite: System, tmp_path: Path) -> None:
    if shutil.which("age") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("the age command is not installed")
        pytest.skip("THE age COMMAND IS NOT INSTALLED")
    identity = KEYS / "identity.txt"
    opened = subprocess.run(["age", "-d", "-i", identity, ENCRYPTED], capture_output=True, check=True)
    assert opened.stdout == SIGNED.read_bytes()
    recipient = subprocess.run(["age-keygen", "-y", identity], capture_output=True, check=True, text=True)
    made = tmp_path / "made.zip.age"
    subprocess.run(["age", "-r", recipient.stdout.strip(), "-o", made, GOLDEN], check=True)
    assert lite.run("restore_backup", str(made), "--identity", str(identity)).code == 0
