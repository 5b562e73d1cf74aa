"""No password, key or token is in what an operation prints, logs, raises or stores."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import traceback
from contextlib import suppress
from pathlib import Path

import pytest
from django.contrib.auth import get_user_model
from django.core import serializers
from django.core.management import CommandError, call_command

from backups.models import ModelReport, ReportFinding, RestoreReport
from backups.services.proof import REDACTED, without_secrets
from tests.systems import System


def hashes() -> set[str]:
    return {user.password for user in get_user_model().objects.all() if user.has_usable_password()}


def test_password_hashes_are_in_no_output_no_log_and_no_report(
    seeded: System, package: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = hashes()
    user = get_user_model().objects.get(username="alice")
    user.set_password("another")
    user.save()
    secrets |= hashes()
    assert len(secrets) > 1

    results = [
        seeded.run("validate_restore", "latest"),
        seeded.run("validate_restore", "latest", "--json"),
        seeded.run("restore_backup", "latest", "--dry-run"),
        seeded.run("restore_backup", "latest", "--json"),
        seeded.run("recovery_drill"),
        seeded.run("inspect_backup", "latest"),
    ]

    assert [result.code for result in results] == [3, 3, 0, 0, 0, 0]
    assert REDACTED in results[0].out
    stored = [
        serializers.serialize("json", model.objects.all()) for model in (RestoreReport, ModelReport, ReportFinding)
    ]
    text = "".join([*(result.out + result.err for result in results), *stored, caplog.text])
    assert json.loads(stored[0])
    for secret in secrets:
        assert secret not in text
        assert secret.rsplit("$", 1)[1] not in text


@pytest.mark.usefixtures("quick_passphrase")
def test_secrets_are_in_no_traceback(seeded: System, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BACKUPS_PASSPHRASE", "correct horse")
    assert seeded.run("create_backup", "--passphrase").code == 0
    identity = tmp_path / "identity"
    identity.write_text("AGE-SECRET-KEY-1QQQ")
    monkeypatch.setenv("BACKUPS_PASSPHRASE", "wrong horse")
    for arguments in (["latest"], ["latest", "--identity", str(identity)]):
        with pytest.raises(CommandError) as raised:
            call_command("restore_backup", *arguments)
        text = "".join(traceback.format_exception(raised.value))
        assert "horse" not in text
        assert "AGE-SECRET-KEY-1QQQ" not in text


def test_what_a_database_quotes_is_redacted() -> None:
    token = "x" * 100
    values = {"name": "alice", "api_token": token, "password": "", "secret": None}
    assert without_secrets(f"Duplicate entry '{token}' for key 'alice'", values) == (
        "Duplicate entry '[redacted]' for key 'alice'"
    )
    assert token[:20] not in without_secrets(f"Duplicate entry '{token[:64]}' for key", values)


def test_secrets_are_in_no_process_list(shell: dict[str, str]) -> None:
    environment = shell | {"BACKUPS_PASSPHRASE": "correct horse", "BACKUPS_IDENTITY": "AGE-SECRET-KEY-1QQQ"}
    shown = set()
    with subprocess.Popen(
        [sys.executable, "manage.py", "create_backup", "--passphrase"], env=environment, stdout=subprocess.DEVNULL
    ) as process:
        while process.poll() is None:
            for one in (process.pid, *children(process.pid)):
                with suppress(OSError):  # which has ended
                    shown.add(Path(f"/proc/{one}/cmdline").read_text())
    assert process.returncode == 0
    assert any("--passphrase" in line for line in shown)
    assert not any("correct horse" in line or "AGE-SECRET" in line for line in shown)


def children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []
