"""What is done stays done, and what could not follow it is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.dispatch import Signal

from backups import files
from backups.models import Backup, RestoreReport
from backups.services import catalogue, safety
from backups.services import restore as restore_service
from backups.signals import backup_created, restore_finished, system_reinitialised
from documents.models import Document, DocumentVersion
from tests.systems import System


def test_what_comes_after_the_commit_does_not_undo_the_work(seeded: System, monkeypatch: pytest.MonkeyPatch) -> None:
    Document.objects.update(title="edited")
    (seeded.media / DocumentVersion.objects.first().file.name).write_bytes(b"edited")  # type: ignore[union-attr]
    exclusive = restore_service.databases.of("default").__class__.exclusive

    def interrupted(self: object, tables: object) -> Any:
        return _then_interrupted(exclusive(self, tables))

    monkeypatch.setattr(restore_service.databases.of("default").__class__, "exclusive", interrupted)
    restored = seeded.run("restore_backup", "latest")

    assert restored.code == 0
    assert "warning unfinished : the restore is done and proved; after that, the end of the tr" in restored.out
    assert not Document.objects.filter(title="edited").exists()
    safety = RestoreReport.objects.get(operation="restore").options["safety_backup"]
    assert (seeded.packages / safety).is_file()
    assert Backup.objects.filter(name=safety).exists()
    assert seeded.run("validate_restore", "latest").code == 0


class _then_interrupted:  # noqa: N801
    def __init__(self, context: Any) -> None:
        self.context = context

    def __enter__(self) -> Any:
        return self.context.__enter__()

    def __exit__(self, *error: Any) -> None:
        self.context.__exit__(*error)
        if error[0] is None:
            raise KeyboardInterrupt


@pytest.mark.parametrize("command", [["restore_backup", "latest"], ["reinit_system", "--no-input"]])
def test_what_an_interrupted_end_has_left_is_cleaned_up_by_the_next_operation(
    seeded: System, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    Document.objects.update(title="edited")
    storage = catalogue.package_storage().__class__
    delete = storage.delete

    def interrupted(self: Any, name: str) -> None:
        if name.startswith(safety.NOTE):
            raise KeyboardInterrupt
        delete(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "delete", interrupted)
        done = seeded.run(*command)
    assert (done.code, done.out.count("warning unfinished")) == (0, 1)
    assert len(list(seeded.packages.glob(f"{safety.NOTE}*"))) == 1

    assert seeded.run("validate_restore", "latest").code in {0, 3}

    assert not list(seeded.packages.glob(f"{safety.NOTE}*"))
    assert len(list(seeded.packages.glob("safety-*"))) == 1
    assert seeded.run("restore_backup", "--undo", "--no-input").code == 0


def test_a_temporary_file_that_stays_is_told(seeded: System, monkeypatch: pytest.MonkeyPatch) -> None:
    (seeded.media / DocumentVersion.objects.first().file.name).write_bytes(b"edited")  # type: ignore[union-attr]

    def refuse(path: Path, onerror: Callable[..., None]) -> None:
        onerror(None, str(path), None)

    monkeypatch.setattr(files.shutil, "rmtree", refuse)
    restored = seeded.run("restore_backup", "latest")

    assert restored.code == 0
    assert "warning temporary_left" in restored.out
    assert ".changes-" in restored.out


def test_a_receiver_that_fails_is_a_finding(seeded: System) -> None:
    def fail(**arguments: object) -> None:
        raise RuntimeError("no audit today")

    restore_finished.connect(fail)
    try:
        restored = seeded.run("restore_backup", "latest")
    finally:
        restore_finished.disconnect(fail)
    assert restored.code == 0
    assert "warning receiver_failed" in restored.out
    assert "no audit today" in restored.out


@pytest.mark.parametrize(
    ("signal", "command"),
    [
        (restore_finished, ("restore_backup", "latest")),
        (system_reinitialised, ("reinit_system", "--no-input")),
        (backup_created, ("create_backup",)),
    ],
)
def test_what_is_done_is_not_cancelled_by_who_interrupts_its_end(
    seeded: System, signal: Signal, command: tuple[str, ...]
) -> None:
    Document.objects.update(title="edited")

    def interrupt(**arguments: object) -> None:
        raise KeyboardInterrupt

    signal.connect(interrupt)
    try:
        done = seeded.run(*command, "--json")
    finally:
        signal.disconnect(interrupt)

    report = json.loads(done.out)
    stored = RestoreReport.objects.get(pk=report["id"])
    assert (done.code, report["verdict"], stored.verdict, stored.error) == (0, "proved", "proved", "")
    (said,) = [one["message"] for one in report["findings"] if one["code"] == "unfinished"]
    assert said.endswith("after that, telling who wants to know was interrupted")
    assert Document.objects.filter(title="edited").exists() is (signal is backup_created)


def test_every_step_after_the_commit_is_taken_whatever_becomes_of_the_others(
    seeded: System, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: Any
) -> None:
    (tmp_path / "site.pem").write_text("PEM")
    settings.BACKUPS = settings.BACKUPS | {"CONFIG_ROOT": tmp_path, "CONFIG_FILES": ["site.pem"]}
    assert seeded.run("create_backup").code == 0
    Document.objects.update(title="edited")
    database = restore_service.databases.of("default").__class__

    def fail(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(restore_service, "settle", fail)
        patch.setattr(database, "after_commit", fail)
        patch.setattr(restore_service, "restore_config", fail)
        restored = seeded.run("restore_backup", "latest", "--config-to", str(tmp_path / "etc"))

    assert (restored.code, restored.out.count("warning unfinished")) == (0, 3)
    assert f"writing configuration files to {tmp_path / 'etc'} failed: [Errno 28] No space left" in restored.out
    assert not Document.objects.filter(title="edited").exists()
    report = RestoreReport.objects.filter(operation="restore").get()
    assert (report.verdict, report.findings.filter(code="unfinished").count()) == ("proved", 3)
