"""System checks of the settings that a backup depends on."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from backups import conf
from backups.errors import BackupError


@register()
def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """Check that ``settings.BACKUPS`` can be read, and that what it names exists."""
    try:
        configuration = conf.read()
    except BackupError as error:
        return [Error(str(error), hint=error.hint, id="backups.E001")]
    messages: list[CheckMessage] = []
    if configuration.storage not in settings.STORAGES:
        messages.append(
            Error(
                f"there is no storage {configuration.storage!r} to keep packages in",
                hint=f"add {configuration.storage!r} to STORAGES, or name another alias in BACKUPS['STORAGE']",
                id="backups.E002",
            )
        )
    for key in ("EXCLUDE", "APPEND_ONLY"):
        for label in getattr(configuration, key.lower()):
            try:
                apps.get_model(label)
            except (LookupError, ValueError):
                messages.append(
                    Error(
                        f"BACKUPS[{key!r}] names {label!r}, which is not a model",
                        hint="write app_label.ModelName",
                        id="backups.E003",
                    )
                )
    return messages
