"""A drill proves a package without touching the live system, and leaves nothing behind but its report."""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import connections

from backups import databases
from backups.errors import BackupError
from backups.models import RestoreReport
from backups.records import coverage
from backups.services import drill, sandbox
from core.models import User
from documents.models import DocumentType
from tests.backups.conftest import nothing_changes
from tests.systems import System
from workflows.models import WorkflowTransitionRule


@pytest.fixture(autouse=True)
def own_scratch_systems(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Give this test's scratch systems names and a place of their own: others may be drilling, too."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sandbox, "PREFIX", f"drill_{uuid.uuid4().hex[:8]}_")


def scratch_systems(system: System) -> list[str]:
    """Return the scratch databases and directories that this test has made."""
    found = [path.name for path in Path(tempfile.gettempdir()).glob(f"{sandbox.PREFIX}*")]
    if system.engine == "sqlite":
        return found
    query = "SELECT datname FROM pg_database" if system.engine == "postgresql" else "SHOW DATABASES"
    with connections["default"].cursor() as cursor:
        cursor.execute(query)
        return [*found, *(name for (name,) in cursor.fetchall() if name.startswith(sandbox.PREFIX))]


def test_a_package_is_rehearsed(seeded: System) -> None:
    with nothing_changes(seeded):
        result = seeded.run("recovery_drill", "--json")

    report = json.loads(result.out)
    assert (result.code, report["verdict"]) == (0, "proved")
    assert [step["name"] for step in report["steps"]] == [
        "create scratch system",
        "restore",
        "validate",
        "drop scratch system",
    ]
    documents = next(model for model in report["models"] if model["model"] == "documents.document")
    assert (documents["before"], documents["after"], documents["proved"]) == (0, 5, True)
    stored = RestoreReport.objects.get(operation="drill")
    assert (stored.verdict, str(stored.id)) == ("proved", report["id"])
    assert scratch_systems(seeded) == []


@pytest.mark.parametrize("change", ["renamed", "deleted", "emptied"])
def test_a_package_without_a_row_of_the_baseline_is_proved(seeded: System, change: str) -> None:
    if change == "renamed":
        Group.objects.filter(name="Authors").update(name="Writers")
        User.objects.filter(username="admin").update(username="root")
    elif change == "deleted":
        DocumentType.objects.filter(documents=None).delete()
        WorkflowTransitionRule.objects.all().delete()
    else:
        tables = [model._meta.db_table for model in coverage.of_database("default").models]
        with databases.of("default").exclusive(tables):
            databases.of("default").empty(tables)
    assert seeded.run("create_backup").code == 0

    result = seeded.run("recovery_drill")

    assert (result.code, "row_extra" in result.out) == (0, False), result.out + result.err


def test_the_demo_plays_the_whole_story(system: System) -> None:
    with nothing_changes(system):
        result = system.run("recovery_drill", "--demo", "--json")

    report = json.loads(result.out)
    story = {model["model"]: (model["package"], model["before"], model["after"]) for model in report["models"]}
    assert (result.code, report["verdict"]) == (0, "proved")
    assert story["core.user"] == (10, 2, 10)
    assert story["documents.document"] == (5, 0, 5)
    assert story["workflows.documentworkflow"] == (4, 0, 4)
    assert all(model["proved"] for model in report["models"])
    assert scratch_systems(system) == []


def test_a_failed_drill_drops_its_scratch_system_and_keeps_its_report(
    seeded: System, monkeypatch: pytest.MonkeyPatch
) -> None:

    def fail(*arguments: Any) -> None:
        raise BackupError("the disk is full")

    monkeypatch.setattr(drill, "restore", fail)
    with nothing_changes(seeded):
        result = seeded.run("recovery_drill")

    assert (result.code, "the disk is full" in result.err) == (1, True)
    assert RestoreReport.objects.get(operation="drill").verdict == "failed"
    assert scratch_systems(seeded) == []


def test_what_a_dead_drill_has_left_is_found_in_another_directory(
    system: System, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    def die(*arguments: Any) -> None:
        (kept,) = Path(tempfile.gettempdir()).glob(f"{sandbox.PREFIX}*")
        left.append(shutil.copytree(kept, f"{kept}-killed"))  # the rest of what this one leaves is cleared away
        raise Killed

    left: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(drill, "create_backup", die)
        with pytest.raises(Killed):
            system.run("recovery_drill", "--demo")
    RestoreReport.objects.filter(operation="drill").update(state="running")
    (tmp_path / "other").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "other"))

    assert system.run("recovery_drill", "--demo").code == 0
    assert [path for path in left if Path(path).exists()] == []


def test_a_damaged_package_fails_its_drill(seeded: System, package: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(package.read_bytes()[:-10])
    assert seeded.run("recovery_drill", str(damaged)).code == 4


def test_a_scratch_database_takes_the_characters_that_the_live_one_takes(system: System) -> None:
    if system.engine != "mariadb":
        return  # SQLite knows one encoding, and PostgreSQL's template decides
    characters = "SELECT @@character_set_database, @@collation_database"
    with connections["default"].cursor() as cursor:
        cursor.execute("ALTER DATABASE CHARACTER SET utf8mb3 COLLATE utf8mb3_czech_ci")  # no server's default
        cursor.execute(characters)
        live = cursor.fetchone()
    connections["default"].close()

    with sandbox.sandbox("default"), connections["default"].cursor() as cursor:
        cursor.execute(characters)
        assert cursor.fetchone() == live
