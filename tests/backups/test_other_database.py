"""Each database of a project is backed up by itself, and no operation on one touches another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connections
from django.test import override_settings

from documents.models import Document
from tests import oracle
from tests.backups.conftest import TRAIL
from tests.systems import System


class DocumentsElsewhere:
    """Keeps the documents of a project in another database, as a router does."""

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return db == "other" if app_label in ("documents", "workflows") else None


@pytest.fixture
def default(new_system: Callable[..., System]) -> Iterator[System]:
    """A system beside which there is another database, ``other``."""
    second = new_system("sqlite").configuration
    with new_system("sqlite").active() as system:
        connections.settings["other"] = {**connections.settings["default"], **second}
        try:
            yield system
        finally:
            connections["other"].close()
            del connections["other"]
            del connections.settings["other"]


def test_an_operation_works_on_the_database_that_it_is_given(default: System) -> None:
    default.run("seed_demo", database="other")
    before, untouched = oracle.rows("other", ignore=TRAIL), oracle.rows()

    for command in (
        ("create_backup",),
        ("reinit_system", "--no-input"),
        ("restore_backup", "latest"),
        ("validate_restore", "latest"),
        ("recovery_drill",),
    ):
        done = default.run(*command, "--database", "other")
        assert done.code == 0, (command, done.out, done.err)
        if command[0] == "reinit_system":
            assert not Document.objects.using("other").exists()

    assert oracle.rows("other", ignore=TRAIL) == before
    assert oracle.rows() == untouched


def test_what_one_database_did_is_not_undone_in_another(default: System) -> None:
    assert default.run("reinit_system", "--no-input").code == 0
    untouched = oracle.rows("other")
    refused = default.run("restore_backup", "--undo", "--no-input", "--database", "other")
    assert (refused.code, "there is nothing to undo" in refused.err) == (2, True)
    assert oracle.rows("other") == untouched

    default.run("seed_demo", database="other")
    seeded = oracle.rows("other", ignore=TRAIL)
    assert default.run("reinit_system", "--no-input", "--database", "other").code == 0
    assert default.run("reinit_system", "--no-input").code == 0
    assert default.run("restore_backup", "--undo", "--no-input", "--database", "other").code == 0
    assert oracle.rows("other", ignore=TRAIL) == seeded


def test_a_package_covers_what_the_router_puts_there(default: System) -> None:
    with override_settings(DATABASE_ROUTERS=["tests.backups.test_other_database.DocumentsElsewhere"]):
        created = default.run("create_backup")
        inspected = default.run("inspect_backup", "latest")
    assert created.code == 0, created.err
    assert "core.user" in inspected.out
    assert "documents.document" not in inspected.out.split("left out")[0]
