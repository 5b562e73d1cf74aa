"""System checks of the settings that a backup depends on."""

from __future__ import annotations

import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004  Django's name for it
from django.core.files.storage import FileSystemStorage, storages
from django.db import DEFAULT_DB_ALIAS, DatabaseError
from django.utils import timezone

from backups import conf, files, reports
from backups.errors import BackupError
from backups.package import age
from backups.services import trust


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
    return [*messages, *_check_keys(configuration)]


@register(deploy=True)
def check_encryption(**kwargs: Any) -> list[CheckMessage]:
    """Check that a stolen package is of no use to the thief."""
    configuration = _configuration()
    if configuration is None or configuration.recipients:
        return []
    return [
        Warning(
            "packages are not encrypted: they hold password hashes and configuration files in the clear",
            hint="name age or SSH public keys in BACKUPS['RECIPIENTS'], and keep the private keys elsewhere",
            id="backups.W001",
        )
    ]


@register(deploy=True)
def check_place(**kwargs: Any) -> list[CheckMessage]:
    """Check that packages are not lost together with the files, and are not there for everybody to read."""
    configuration = _configuration()
    if configuration is None or configuration.storage not in settings.STORAGES:
        return []
    storage = storages[configuration.storage]
    if not isinstance(storage, FileSystemStorage):
        return []
    place = Path(storage.location).resolve()
    messages: list[CheckMessage] = []
    if shared := [media for media in _media_directories() if _volume(media) == _volume(place)]:
        messages.append(
            Warning(
                f"packages are kept in {place}, on the volume of the files that they are to save: {shared[0]}",
                hint="keep them on another disk or in a remote storage",
                id="backups.W002",
            )
        )
    messages += [
        Warning(
            f"packages are kept in {place}, below {served}, which a web server may serve",
            hint="keep them in a directory that nothing else looks into",
            id="backups.W003",
        )
        for served in _served_directories()
        if place.is_relative_to(served)
    ]
    if place.is_dir() and (mode := stat.S_IMODE(place.stat().st_mode)) & 0o077:
        messages.append(
            Warning(
                f"the directory of the packages, {place}, is open to others: its mode is {mode:04o}",
                hint=f"chmod 700 {place}",
                id="backups.W004",
            )
        )
    return messages


@register(deploy=True)
def check_drill(**kwargs: Any) -> list[CheckMessage]:
    """Check that a recovery was rehearsed lately. Says nothing where the database cannot be asked."""
    configuration = _configuration()
    if configuration is None or not configuration.drill_days:
        return []
    try:
        known, last = reports.last_drill(DEFAULT_DB_ALIAS)
    except DatabaseError:
        return []
    days = configuration.drill_days
    if not known or (last and timezone.now() - last < timedelta(days=days)):
        return []
    found = (
        f"the last recovery drill that succeeded was on {last:%Y-%m-%d}" if last else "no recovery drill succeeded yet"
    )
    return [
        Warning(
            f"{found}; there should be one every {days} days",
            hint="run manage.py recovery_drill: a backup that was never restored is a hope",
            id="backups.W005",
        )
    ]


@register(deploy=True)
def check_signing(**kwargs: Any) -> list[CheckMessage]:
    """Check that packages made here, safety backups among them, can be restored here."""
    configuration = _configuration()
    if configuration is None or not configuration.trusted_keys or _check_keys(configuration):
        return []
    if configuration.signing_key_file and not trust.untrusted_own_key():
        return []
    return [
        Warning(
            "packages made here, safety backups among them, are refused here: "
            "no key in BACKUPS['TRUSTED_KEYS'] is that of BACKUPS['SIGNING_KEY_FILE']",
            hint="sign packages, and add the public key to BACKUPS['TRUSTED_KEYS']",
            id="backups.W006",
        )
    ]


def _configuration() -> conf.Configuration | None:
    """Return the settings, or None where ``check_settings`` says what is wrong with them."""
    try:
        return conf.read()
    except BackupError:
        return None


def _check_keys(configuration: conf.Configuration) -> list[CheckMessage]:
    messages: list[CheckMessage] = []
    try:
        for recipient in configuration.recipients:
            age.parse_recipient(recipient)
    except BackupError as error:
        messages.append(Error(f"BACKUPS['RECIPIENTS']: {error}", hint=error.hint, id="backups.E004"))
    for read, code in ((trust.trusted_keys, "backups.E005"), (trust.signing_key, "backups.E006")):
        try:
            read()
        except BackupError as error:
            messages.append(Error(str(error), hint=error.hint, id=code))
    return messages


def _media_directories() -> list[Path]:
    stored = files.storages_of(apps.get_models(include_auto_created=True)).values()
    return [Path(storage.location).resolve() for storage in stored if isinstance(storage, FileSystemStorage)]


def _served_directories() -> list[Path]:
    static: list[Any] = [entry[1] if isinstance(entry, list | tuple) else entry for entry in settings.STATICFILES_DIRS]
    named: list[Any] = [settings.MEDIA_ROOT, settings.STATIC_ROOT, *static]
    return list(dict.fromkeys(Path(directory).resolve() for directory in named if directory))


def _volume(path: Path) -> int:
    """Return the device that a path is on, or will be once it exists."""
    existing = next(one for one in (path, *path.parents) if one.exists())
    return existing.stat().st_dev
