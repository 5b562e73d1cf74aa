"""A setting that a backup depends on and that cannot work is found by ``manage.py check``."""

from __future__ import annotations

from typing import Any

import pytest

from backups.checks import check_settings
from tests.backups.conftest import nothing_changes
from tests.systems import System


def test_the_projects_own_settings_are_sound() -> None:
    assert check_settings() == []


@pytest.mark.parametrize(
    ("changes", "code", "named"),
    [
        ({"STORRAGE": "x"}, "backups.E001", "STORRAGE"),
        ({"STORAGE": "nowhere"}, "backups.E002", "nowhere"),
        ({"EXCLUDE": ["core.Nobody"]}, "backups.E001", "core.Nobody"),
        ({"APPEND_ONLY": ["nonsense"]}, "backups.E001", "nonsense"),
        ({"COMPRESSION_LEVEL": 99}, "backups.E001", "BACKUPS['COMPRESSION_LEVEL'] is 99"),
        ({"COMPRESSION_LEVEL": "x"}, "backups.E001", "BACKUPS['COMPRESSION_LEVEL'] is a str"),
        ({"DRILL_DAYS": True}, "backups.E001", "BACKUPS['DRILL_DAYS'] is True"),
        ({"RECIPIENTS": None}, "backups.E001", "BACKUPS['RECIPIENTS'] is None"),
        ({"RECIPIENTS": ["age1", "\udcfe"]}, "backups.E001", "a list that holds a str that is not UTF-8"),
        ({"SENSITIVE": "password"}, "backups.E001", "BACKUPS['SENSITIVE'] is a str"),
        ({"SHOW_VALUES": "0"}, "backups.E001", "BACKUPS['SHOW_VALUES'] is a str"),
        ({"CONFIG_ROOT": None}, "backups.E001", "BACKUPS['CONFIG_ROOT'] is None"),
        ({"CONFIG_FILES": [None]}, "backups.E001", "a list that holds None"),
    ],
)
def test_a_setting_that_cannot_work_is_named(settings: Any, changes: dict[str, Any], code: str, named: str) -> None:
    settings.BACKUPS = settings.BACKUPS | changes
    (message,) = check_settings()
    assert message.id == code
    assert named in message.msg


@pytest.mark.parametrize("given", [None, []])
def test_settings_that_are_none_are_told(system: System, settings: Any, given: Any) -> None:
    settings.BACKUPS = given
    with nothing_changes(system):
        result = system.run("create_backup")
    assert result.code == 1
    assert "settings.BACKUPS is" in result.err
    assert "hint: write a dict" in result.err


def test_a_model_that_does_not_exist_stops_every_operation(seeded: System, settings: Any) -> None:
    settings.BACKUPS = settings.BACKUPS | {"APPEND_ONLY": ["core.Nobody"]}
    with nothing_changes(seeded):
        results = [seeded.run("create_backup"), seeded.run("restore_backup", "latest")]
    assert [result.code for result in results] == [1, 1]
    assert all("BACKUPS['APPEND_ONLY'] names 'core.Nobody'" in result.err for result in results)
