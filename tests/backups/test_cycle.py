"""The story that this project exists for, on every engine, through the real commands."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from django.contrib.auth import get_user_model

from documents.models import Document
from tests import oracle
from tests.backups.conftest import TRAIL
from tests.systems import System
from workflows.models import DocumentWorkflow


def counts() -> tuple[int, int, int]:
    return get_user_model().objects.count(), Document.objects.count(), DocumentWorkflow.objects.count()


def test_everything_comes_back_after_reinitialisation(told: System) -> None:
    before, files = oracle.rows(), oracle.files(told.media)
    assert counts() == (10, 5, 4)

    assert told.run("create_backup").code == 0
    assert told.run("reinit_system", "--no-input").code == 0
    assert counts() == (2, 0, 0)
    assert oracle.files(told.media) == {}

    restored = told.run("restore_backup", "latest")
    assert (restored.code, restored.err) == (0, "")
    assert counts() == (10, 5, 4)
    assert {label: rows for label, rows in oracle.rows().items() if label not in TRAIL} == {
        label: rows for label, rows in before.items() if label not in TRAIL
    }
    assert set(before["core.auditevent"]) <= set(oracle.rows()["core.auditevent"])
    assert oracle.files(told.media) == files
    assert told.run("validate_restore", "latest").code == 0
    assert told.run("verify_audit_trail").code == 0


def test_restoring_twice_changes_nothing_and_says_so(told: System) -> None:
    told.run("create_backup")
    told.run("reinit_system", "--no-input")
    told.run("restore_backup", "latest")
    before, keys = oracle.rows(ignore=TRAIL), oracle.keys()

    again = told.run("restore_backup", "latest", "--json")

    report = json.loads(again.out)
    assert again.code == 0
    assert report["verdict"] == "proved"
    assert all(model["created"] == model["updated"] == 0 for model in report["models"])
    assert oracle.rows(ignore=TRAIL) == before
    assert {label: pks for label, pks in oracle.keys().items() if label not in TRAIL} == {
        label: pks for label, pks in keys.items() if label not in TRAIL
    }


def test_baseline_users_keep_their_new_keys_and_references_follow(told: System) -> None:
    User = get_user_model()  # noqa: N806
    admin_before = User.objects.get(username="admin").pk
    User.objects.filter(username="system").delete()
    other = User.objects.exclude(username="admin").order_by("pk").first()
    assert other is not None
    authors = {document.number: document.author.username for document in Document.objects.all()}
    told.run("create_backup")
    told.run("reinit_system", "--no-input")
    User.objects.filter(username="admin").delete()
    admin_after = User.objects.create(pk=other.pk, username="admin").pk

    assert told.run("restore_backup", "latest").code == 0

    assert admin_after != admin_before
    assert User.objects.get(username="admin").pk == admin_after
    assert {document.number: document.author.username for document in Document.objects.all()} == authors
    assert User.objects.get(username=other.username).pk != other.pk


@pytest.mark.parametrize(("source", "target"), [("postgresql", "sqlite"), ("sqlite", "mariadb")])
def test_a_package_moves_between_engines(new_system: Callable[[str], System], source: str, target: str) -> None:
    with new_system(source).active() as old:
        old.run("seed_demo")
        assert old.run("create_backup").code == 0
        (package,) = old.packages.glob("backup-*.zip")
        before, files = oracle.rows(ignore=TRAIL), oracle.files(old.media)
    with new_system(target).active() as new:
        restored = new.run("restore_backup", str(package))
        assert (restored.code, restored.err) == (0, "")
        assert counts() == (10, 5, 4)
        assert oracle.rows(ignore=TRAIL) == before
        assert oracle.files(new.media) == files
        assert new.run("validate_restore", str(package)).code == 0
