"""``check --deploy`` says where packages could be read, forged or lost, or were never tried."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import CheckMessage, registry
from django.core.management import CommandError, call_command
from django.db import connections
from django.utils import timezone

from backups import checks
from backups.checks import check_drill, check_encryption, check_place, check_settings, check_signing
from backups.models import RestoreReport
from tests.keypairs import KeyPair
from tests.systems import System

RECIPIENT = "age1tp6e3anzzm5lw6y8zwmgq7ge34uv0h3u8hev884kh7shcypawf2qpmk7q2"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG9KyZMCIyBTbZwoYlYjrzyGZlwlyWfRB8TnKR0eNVAl backups@example.com"
FILESYSTEM = "django.core.files.storage.FileSystemStorage"


@pytest.fixture
def configure(settings: Any) -> Callable[..., None]:
    original = settings.BACKUPS

    def change(**changes: Any) -> None:
        settings.BACKUPS = original | changes

    return change


@pytest.fixture
def place(settings: Any, tmp_path: Path) -> Path:
    """The directory of the packages; the files are elsewhere on the same volume."""
    place = tmp_path / "packages"
    settings.STORAGES = settings.STORAGES | {"backups": {"BACKEND": FILESYSTEM, "OPTIONS": {"location": place}}}
    settings.MEDIA_ROOT, settings.STATIC_ROOT = tmp_path / "media", tmp_path / "static"
    return place


@pytest.fixture
def live(new_system: Callable[[str], System]) -> Iterator[System]:
    with new_system("sqlite").active() as active:
        yield active


def codes(messages: list[CheckMessage]) -> list[str | None]:
    assert all(message.hint for message in messages)
    return [message.id for message in messages]


def test_they_are_checks_of_a_deployment() -> None:
    deployed = registry.registry.deployment_checks
    for check in (check_encryption, check_place, check_drill, check_signing):
        assert check in deployed


def test_packages_in_the_clear_are_named(configure: Callable[..., None]) -> None:
    assert codes(check_encryption()) == ["backups.W001"]
    configure(RECIPIENTS=[RECIPIENT])
    assert codes(check_encryption()) == []


def test_the_volume_of_the_files_is_no_place_for_packages(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert codes(check_place()) == []  # the files are in memory
    with System("sqlite", {}, tmp_path).active():
        assert codes(check_place()) == ["backups.W002"]
        monkeypatch.setattr(checks, "_volume", lambda path: len(str(path)))
        assert codes(check_place()) == []


def test_the_volume_of_a_directory_to_come_is_that_of_its_parent(tmp_path: Path) -> None:
    assert checks._volume(tmp_path / "not/yet/there") == tmp_path.stat().st_dev


@pytest.mark.parametrize("below", ["MEDIA_ROOT", "STATIC_ROOT", "STATICFILES_DIRS"])
def test_a_served_directory_is_no_place_for_packages(place: Path, settings: Any, below: str) -> None:
    setattr(settings, below, [("prefix", place.parent)] if below == "STATICFILES_DIRS" else str(place.parent))
    (message,) = check_place()
    assert message.id == "backups.W003"
    assert str(place) in message.msg


def test_a_directory_that_others_can_read_is_named(place: Path) -> None:
    for mode, expected in ((0o700, []), (0o750, ["backups.W004"]), (0o701, ["backups.W004"])):
        place.mkdir(exist_ok=True)
        place.chmod(mode)
        assert codes(check_place()) == expected


def test_a_remote_place_has_no_directory() -> None:
    assert codes(check_place()) == []


def test_a_system_that_never_rehearsed_is_named(live: System, configure: Callable[..., None]) -> None:
    assert codes(check_drill()) == ["backups.W005"]
    live.run("create_backup")
    assert live.run("recovery_drill", "--demo").code == 0
    assert codes(check_drill()) == ["backups.W005"]  # it rehearsed with data of its own
    assert live.run("recovery_drill").code == 0
    assert codes(check_drill()) == []

    RestoreReport.objects.filter(operation="drill").update(started=timezone.now() - timedelta(days=91))
    (message,) = check_drill()
    assert "the last recovery drill that succeeded was on" in message.msg
    configure(DRILL_DAYS=92)
    assert codes(check_drill()) == []
    RestoreReport.objects.filter(operation="drill").update(verdict="failed")
    assert codes(check_drill()) == ["backups.W005"]
    configure(DRILL_DAYS=0)
    assert codes(check_drill()) == []


def test_a_database_that_cannot_be_asked_is_no_complaint(live: System, tmp_path: Path) -> None:
    with connections["default"].cursor() as cursor:
        cursor.execute("ALTER TABLE backups_restorereport RENAME TO elsewhere")
    assert codes(check_drill()) == []
    with System("sqlite", {**live.configuration, "NAME": str(tmp_path / "no/where")}, tmp_path).active():
        assert codes(check_drill()) == []


def test_packages_that_would_be_refused_here_are_named(configure: Callable[..., None], tmp_path: Path) -> None:
    assert codes(check_signing()) == []
    configure(TRUSTED_KEYS=[KEY])
    assert codes(check_signing()) == ["backups.W006"]
    own = KeyPair(tmp_path / "key")
    configure(TRUSTED_KEYS=[KEY], SIGNING_KEY_FILE=own.path)
    assert codes(check_signing()) == ["backups.W006"]
    configure(TRUSTED_KEYS=[KEY, own.public], SIGNING_KEY_FILE=own.path)
    assert codes(check_signing()) == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"RECIPIENTS": ["age1nonsense"]}, "backups.E004"),
        ({"TRUSTED_KEYS": ["ssh-ed25519 nonsense"]}, "backups.E005"),
        ({"TRUSTED_KEYS": ["ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQ=="]}, "backups.E005"),
        ({"SIGNING_KEY_FILE": "/nowhere/key"}, "backups.E006"),
    ],
)
def test_keys_that_cannot_work_are_errors(configure: Callable[..., None], changes: dict[str, Any], code: str) -> None:
    configure(**changes)
    assert codes(check_settings()) == [code]
    assert codes(check_signing()) == []


def test_settings_that_cannot_be_read_are_complained_about_once(configure: Callable[..., None]) -> None:
    configure(RECIPENTS=[])
    assert codes(check_settings()) == ["backups.E001"]
    assert codes([*check_encryption(), *check_place(), *check_drill(), *check_signing()]) == []


def test_the_command_shows_them(live: System, place: Path) -> None:
    err = io.StringIO()
    with pytest.raises(CommandError) as raised:
        call_command("check", deploy=True, fail_level="WARNING", stderr=err)
    for code in ("backups.W001", "backups.W005"):
        assert code in str(raised.value)
