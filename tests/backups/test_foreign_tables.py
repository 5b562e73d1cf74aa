"""Tables beside ours whose rows refer to ours stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from django.db import IntegrityError, connection, transaction

from core.models import User
from tests.backups.conftest import nothing_changes
from tests.engines import ENGINES
from tests.systems import System

ACTIONS = {
    "other_gone": "CASCADE",
    "other_emptied": "SET NULL",
    "other_kept": "RESTRICT",
    "other_refused": "NO ACTION",
}


@pytest.fixture(params=ENGINES)
def strangers(request: pytest.FixtureRequest, new_system: Callable[..., System]) -> Iterator[System]:
    """A system beside whose tables there are others, whose rows go, change or object when their user is deleted."""
    with new_system(request.param).active() as system, connection.cursor() as cursor:
        bob = User.objects.create(username="bob", first_name="old")
        for table, action in ACTIONS.items():
            cursor.execute(
                f"CREATE TABLE {table} (id integer PRIMARY KEY, usr bigint DEFAULT 1,"
                f" FOREIGN KEY (usr) REFERENCES core_user (id) ON DELETE {action})"
            )
            cursor.execute(f"INSERT INTO {table} VALUES (1, {bob.pk})")
        assert system.run("create_backup").code == 0
        yield system


def rows_of_strangers() -> list[object]:
    found = []
    with connection.cursor() as cursor:
        for table in ACTIONS:
            cursor.execute(f"SELECT usr FROM {table}")
            found += [row[0] for row in cursor.fetchall()]
    return found


@pytest.mark.parametrize("mode", ["merge", "replace"])
def test_rows_of_others_stay_as_they_are_when_what_they_refer_to_is_overwritten(strangers: System, mode: str) -> None:
    bob = User.objects.get(username="bob")
    User.objects.update(first_name="new")
    done = strangers.run("restore_backup", "latest", "--mode", mode, "--no-input")
    assert done.code == 0, done.out + done.err
    assert User.objects.get(username="bob").first_name == "old"
    assert rows_of_strangers() == [bob.pk] * len(ACTIONS)
    with connection.cursor() as cursor:  # the foreign keys do again what they did
        for table in ("other_kept", "other_refused"):
            with pytest.raises(IntegrityError), transaction.atomic():
                User.objects.filter(username="bob")._raw_delete("default")
            cursor.execute(f"DELETE FROM {table}")
    User.objects.filter(username="bob")._raw_delete("default")
    assert rows_of_strangers() == [None]


def test_nothing_is_deleted_that_others_refer_to(strangers: System) -> None:
    with connection.cursor() as cursor:
        carol = User.objects.create(username="carol")
        cursor.execute(f"UPDATE other_gone SET usr = {carol.pk}")
    with nothing_changes(strangers):
        before = rows_of_strangers()
        replaced = strangers.run("restore_backup", "latest", "--mode", "replace", "--no-input")
        assert replaced.code == 3, replaced.out + replaced.err
        assert "constraint_violated" in replaced.out
        assert "other_gone" in replaced.out
        emptied = strangers.run("reinit_system", "--no-input")
        assert emptied.code == 1, emptied.out + emptied.err
        assert "refer to rows that would be deleted" in emptied.err
        assert rows_of_strangers() == before
