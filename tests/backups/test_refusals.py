"""What cannot be done is refused with a message, a hint and an exit code, and everything stays as it was."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.management import call_command
from django.db import connections, transaction
from django.db.migrations.recorder import MigrationRecorder

from backups import databases
from backups.models import RestoreReport
from backups.package.container import ContainerReader, ContainerWriter
from backups.package.manifest import Format, Manifest
from backups.package.reader import PackageReader
from tests.backups.conftest import Terminal, nothing_changes
from tests.systems import System


def rewrite_manifest(package: Path, change: Callable[[Manifest], Manifest]) -> Path:
    """Write a package again with another manifest, in the canonical form."""
    target = package.with_name("other.zip")
    with PackageReader(package) as reader, package.open("rb") as source, target.open("wb") as file:
        manifest = change(reader.manifest)
        manifest = replace(manifest, id=manifest.derived_id())
        members, writer = ContainerReader(source), ContainerWriter(file)
        for member in members.members.values():
            if member.name != "manifest.json":
                writer.add(member.name, member.size, member.crc32, members.chunks(member.name))
        writer.finish(manifest.to_json())
    return target


def with_another_column(manifest: Manifest) -> Manifest:
    document = next(model for model in manifest.models if model.label == "documents.document")
    columns = tuple(
        replace(column, name="heading") if column.name == "title" else column for column in document.columns
    )
    models = tuple(replace(model, columns=columns) if model is document else model for model in manifest.models)
    return replace(manifest, models=models)


def with_another_migration(manifest: Manifest) -> Manifest:
    return replace(manifest, migrations={**manifest.migrations, "documents": ("0001_initial", "0099_future")})


@pytest.mark.parametrize("command", ["restore_backup", "validate_restore"])
def test_a_damaged_package_is_refused(seeded: System, package: Path, command: str) -> None:
    data = bytearray(package.read_bytes())
    data[len(data) // 3] ^= 4
    damaged = seeded.directory / "damaged.zip"
    damaged.write_bytes(data)
    with nothing_changes(seeded):
        result = seeded.run(command, str(damaged))
    assert result.code == 4
    assert "hint:" in result.err
    assert any(name in result.err for name in ("data/", "files", "manifest"))


@pytest.mark.parametrize(
    "command",
    [
        ["create_backup"],
        ["restore_backup", "latest", "--mode", "replace", "--no-input"],
        ["validate_restore", "latest"],
        ["reinit_system", "--no-input"],
        ["recovery_drill"],
    ],
    ids=lambda command: str(command[0]),
)
def test_no_operation_runs_within_a_transaction(seeded: System, package: Path, command: list[str]) -> None:
    with nothing_changes(seeded), transaction.atomic():
        result = seeded.run(*command)
    assert result.code == 6
    assert "a transaction is open on database 'default'" in result.err


@pytest.mark.parametrize("command", ["restore_backup", "validate_restore", "inspect_backup"])
def test_a_newer_format_is_refused(seeded: System, package: Path, command: str) -> None:
    newer = rewrite_manifest(package, lambda manifest: replace(manifest, format=Format(version=2)))
    with nothing_changes(seeded):
        result = seeded.run(command, str(newer))
    assert result.code == 5
    assert "format version 2" in result.err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_another_column, ["documents.document.heading: only in the package", "title: only in the code"]),
        (with_another_migration, ["documents: migration 0099_future only in the package"]),
    ],
)
@pytest.mark.parametrize("command", ["restore_backup", "validate_restore"])
def test_another_schema_is_refused_with_the_exact_difference(
    seeded: System, package: Path, command: str, change: Callable[[Manifest], Manifest], words: list[str]
) -> None:
    other = rewrite_manifest(package, change)
    with nothing_changes(seeded):
        result = seeded.run(command, str(other))
    assert result.code == 5
    assert all(word in result.err for word in words), result.err


@pytest.mark.parametrize(
    "command",
    [["create_backup"], ["restore_backup", "latest"], ["validate_restore", "latest"], ["reinit_system", "--no-input"]],
)
def test_pending_migrations_are_refused(seeded: System, command: list[str]) -> None:
    MigrationRecorder(connections["default"]).record_unapplied("workflows", "0001_initial")
    with nothing_changes(seeded):
        result = seeded.run(*command)
    assert result.code == 6
    assert "workflows.0001_initial" in result.err
    assert "migrate" in result.err


def test_reports_that_cannot_be_kept_yet_are_a_reason_to_migrate(lite: System) -> None:
    call_command("migrate", "backups", "0002", verbosity=0)
    for command in (["create_backup"], ["reinit_system", "--no-input"]):
        refused = lite.run(*command)
        assert (refused.code, "backups.0003_restorereport_change" in refused.err) == (6, True), refused.err


@contextmanager
def another_process_operates(system: System) -> Iterator[None]:
    """Hold the lock of operations in another process, which says so in a report."""
    configuration = system.configuration | {"NAME": str(system.configuration["NAME"])}
    program = f"""
        import sys
        from pathlib import Path
        import django
        django.setup()
        from tests.systems import System
        from backups.reporting import Report
        from backups.services.operation import operation
        system = System({system.engine!r}, {configuration!r}, Path({str(system.directory)!r}))
        with system.active(), operation(Report(operation="create", database="default")):
            print("running", flush=True)
            sys.stdin.read()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=django_settings.BASE_DIR,
        env={"DJANGO_SETTINGS_MODULE": "tests.settings", "PATH": ""},
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    try:
        yield
    finally:
        process.kill()
        process.communicate()
        _wait_for_the_lock()


def _wait_for_the_lock() -> None:
    """A server takes a moment to notice that a client has died."""
    ends = time.monotonic() + 10
    while time.monotonic() < ends:
        with databases.of("default").lock() as held:
            if held:
                return
        time.sleep(0.05)


@pytest.mark.parametrize(
    "command",
    [["create_backup"], ["restore_backup", "latest"], ["validate_restore", "latest"], ["reinit_system", "--no-input"]],
)
def test_a_second_operation_is_refused_and_told_which_one_runs(seeded: System, command: list[str]) -> None:
    with another_process_operates(seeded):
        with nothing_changes(seeded):
            result = seeded.run(*command)
        assert result.code == 6
        assert "create since" in result.err
    assert seeded.run(*command).code == 0


def test_a_killed_operation_is_found_interrupted_by_the_next(seeded: System) -> None:
    with another_process_operates(seeded):
        assert RestoreReport.objects.filter(state="running").count() == 1
    assert seeded.run("create_backup").code == 0
    assert RestoreReport.objects.filter(state="running").count() == 0
    assert RestoreReport.objects.filter(state="interrupted").count() == 1


@pytest.mark.parametrize("command", [["reinit_system"], ["restore_backup", "latest", "--mode", "replace"]])
def test_destruction_without_confirmation_is_refused(seeded: System, command: list[str]) -> None:
    with nothing_changes(seeded):
        result = seeded.run(*command)
    assert result.code == 6
    assert "--no-input" in result.err


@pytest.mark.parametrize(
    ("command", "word"), [(["reinit_system"], "delete"), (["restore_backup", "latest", "--mode", "replace"], "replace")]
)
def test_destruction_asks_for_a_typed_word(
    seeded: System, monkeypatch: pytest.MonkeyPatch, command: list[str], word: str
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("no\n"))
    with nothing_changes(seeded):
        cancelled = seeded.run(*command)
    assert cancelled.code == 7
    assert "10  core.user" in cancelled.err
    monkeypatch.setattr("sys.stdin", Terminal(f"{word}\n"))
    assert seeded.run(*command).code == 0


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["restore_backup", "nowhere.zip"], "there is no package 'nowhere.zip'"),
        (["validate_restore", "nowhere"], "there is no package 'nowhere'"),
        (["inspect_backup", "latest"], "there is no package yet"),
        (["create_backup", "--database", "nowhere"], "there is no database 'nowhere'"),
    ],
)
def test_wrong_usage_is_told(system: System, command: list[str], words: str) -> None:
    with nothing_changes(system):
        result = system.run(*command)
    assert result.code == 2
    assert words in result.err


def test_an_unknown_setting_is_told(system: System, settings: Any) -> None:
    settings.BACKUPS = settings.BACKUPS | {"STORAGES": "backups"}
    result = system.run("create_backup")
    assert result.code == 1
    assert "'STORAGES'" in result.err
    assert "STORAGE" in result.err.split("hint:")[1]
