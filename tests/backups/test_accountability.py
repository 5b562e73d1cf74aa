"""Every operation that could destroy something leaves a record: who, what, when, from which package, how it ended."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from backups.models import RestoreReport
from backups.reporting import printable
from core.audit import operating_system_account
from core.models import AuditEvent
from documents.models import Document
from tests.systems import System


@pytest.fixture
def recorded(seeded: System) -> Iterator[Callable[..., None]]:
    """Run a command, and look what it has left in the reports and in the audit trail."""

    def run(operation: str, verdict: str, package: str, *command: str, code: int = 0, **options: object) -> None:
        reports = set(RestoreReport.objects.values_list("id", flat=True))
        assert seeded.run(*command).code == code
        report = RestoreReport.objects.exclude(id__in=reports).get()
        assert (report.operation, report.verdict, report.state) == (operation, verdict, "finished")
        assert (report.account, report.host) == (pwd.getpwuid(os.getuid()).pw_name, socket.gethostname())
        assert timezone.now() - timedelta(minutes=1) < report.started <= report.finished
        assert package in report.package
        assert options.items() <= report.options.items()
        (event,) = AuditEvent.objects.filter(details__report=str(report.id))
        assert event.action == f"backups.{operation}"
        assert event.details == {
            "report": str(report.id),
            "package": Path(report.package).name,
            "verdict": verdict,
            "account": operating_system_account(),
        }

    yield run
    assert seeded.run("verify_audit_trail").code == 0


def test_what_is_done_is_recorded(recorded: Callable[..., None]) -> None:
    recorded("create", "proved", "backup-", "create_backup", "--note", "nightly", note="nightly")
    recorded("reinit", "proved", "safety-", "reinit_system", "--no-input", safety_backup=True)
    undo = ("restore_backup", "--undo", "--no-input")
    recorded("restore", "proved", "safety-", *undo, mode="replace", undo=True)
    recorded("restore", "proved", "backup-", "restore_backup", "latest", mode="merge", undo=False)


def test_whoever_sets_logname_is_who_he_is(lite: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "somebody else")
    assert lite.run("create_backup").code == 0
    assert RestoreReport.objects.get().account == pwd.getpwuid(os.getuid()).pw_name


@pytest.mark.parametrize("account", ["x" * 200, os.fsdecode(b"caf\xe9"), "\x1b[31m"])
def test_an_account_of_any_name_is_recorded(seeded: System, monkeypatch: pytest.MonkeyPatch, account: str) -> None:
    monkeypatch.setattr(pwd, "getpwuid", lambda number: SimpleNamespace(pw_name=account))
    done = seeded.run("create_backup", "--json")
    assert (done.code, "receiver_failed" in done.out) == (0, False), done.out + done.err
    report = RestoreReport.objects.latest("started")
    assert report.account == printable(account)[:150]
    event = AuditEvent.objects.get(details__report=str(report.id))
    assert event.actor_name.startswith(f"os:{account[:1]}")
    assert seeded.run("verify_audit_trail").code == 0


def test_what_is_rolled_back_is_recorded(recorded: Callable[..., None], seeded: System) -> None:
    package = str(next(seeded.packages.glob("backup-*")))
    Document.objects.filter(number="SOP-2026-0001").update(number="SOP-2026-9999")
    with connection.cursor() as cursor:  # so that its title is taken
        cursor.execute(f"CREATE UNIQUE INDEX x ON documents_document (title{'(99)' * (connection.vendor == 'mysql')})")
    recorded("restore", "rolled_back", "backup-", "restore_backup", package, code=3)


@pytest.mark.usefixtures("quick_passphrase")
def test_what_fails_is_recorded(
    recorded: Callable[..., None], seeded: System, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: Any
) -> None:
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(next(seeded.packages.glob("backup-*")).read_bytes()[:-100])
    recorded("restore", "failed", "damaged.zip", "restore_backup", str(damaged), code=4)

    monkeypatch.setenv("BACKUPS_PASSPHRASE", "correct horse")
    locked = tmp_path / "locked.zip.age"
    recorded("create", "proved", str(locked), "create_backup", "--passphrase", "--output", str(locked))
    monkeypatch.setenv("BACKUPS_PASSPHRASE", "wrong horse")
    recorded("restore", "failed", "locked.zip.age", "restore_backup", str(locked), code=4)

    next(path for path in seeded.media.rglob("*") if path.is_file()).unlink()
    recorded("create", "failed", "", "create_backup", code=3)
    recorded("reinit", "failed", "", "reinit_system", "--no-input", code=3)
