"""A setting that a backup depends on and that cannot work is found by ``manage.py check``."""

from __future__ import annotations

from typing import Any

import pytest

from backups.checks import check_settings


def test_the_projects_own_settings_are_sound() -> None:
    assert check_settings() == []


@pytest.mark.parametrize(
    ("changes", "code", "named"),
    [
        ({"STORRAGE": "x"}, "backups.E001", "STORRAGE"),
        ({"STORAGE": "nowhere"}, "backups.E002", "nowhere"),
        ({"EXCLUDE": ["core.Nobody"]}, "backups.E003", "core.Nobody"),
        ({"APPEND_ONLY": ["nonsense"]}, "backups.E003", "nonsense"),
    ],
)
def test_a_setting_that_cannot_work_is_named(settings: Any, changes: dict[str, Any], code: str, named: str) -> None:
    settings.BACKUPS = settings.BACKUPS | changes
    (message,) = check_settings()
    assert message.id == code
    assert named in message.msg
