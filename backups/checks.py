"""System checks of the settings and the natural keys that a backup depends on."""

from __future__ import annotations

import inspect
import stat
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004  Django's name for it
from django.core.exceptions import FieldDoesNotExist
from django.core.files.storage import FileSystemStorage, storages
from django.db import DEFAULT_DB_ALIAS, DatabaseError
from django.db.models import Model
from django.utils import timezone

from backups import conf, files, reports
from backups.errors import BackupError
from backups.package import age
from backups.records.identity import has_automatic_key, is_unique, natural_key_fields, natural_key_parts
from backups.records.relations import AnyField, get_field, related_model
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


@register(Tags.models)
def check_natural_keys(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Check that natural keys are where Django looks for them, and that each means one row in every database."""
    labels = None if app_configs is None else {config.label for config in app_configs}
    models = [
        model
        for model in apps.get_models()
        if not model._meta.proxy and (labels is None or model._meta.app_label in labels)
    ]
    return [message for model in models for message in _check_natural_key(model)]


def _check_natural_key(model: type[Model]) -> Iterator[CheckMessage]:
    label = model._meta.label
    if not hasattr(model._default_manager, "get_by_natural_key"):
        managers = [f"{label}.{one.name}" for one in model._meta.managers if hasattr(one, "get_by_natural_key")]
        if misplaced := managers or [label] * hasattr(model, "get_by_natural_key"):
            yield Error(
                f"{misplaced[0]}.get_by_natural_key is never called: Django asks the default manager",
                hint="put it on the first manager that the model declares, or name its manager default_manager_name",
                obj=model,
                id="backups.E007",
            )
        return
    if natural_key_parts(model) is None:
        return  # it has none, or one that is not used
    if _depends_on_itself(model):
        yield Error(
            f"the natural key of {label} depends on that of {label}",
            hint="leave the reference that leads back out of the key: no row of such a circle can be loaded first",
            obj=model,
            id="backups.E008",
        )
    paths = natural_key_fields(model)
    if paths is None:
        return
    try:
        steps = [list(_steps(model, path)) for path in paths]
    except (FieldDoesNotExist, AttributeError):
        yield Error(
            f"{label}.natural_key_fields is {paths!r}, which does not lead to columns",
            hint="name fields of the model, and fields of what they refer to as in 'document__number'",
            obj=model,
            id="backups.E009",
        )
        return
    yield from _check_paths(model, paths, steps)


def _check_paths(
    model: type[Model], paths: tuple[str, ...], steps: list[list[tuple[type[Model], AnyField]]]
) -> Iterator[CheckMessage]:
    label = model._meta.label
    if not _is_as_declared(model, paths):
        yield Error(
            f"{label}.natural_key() does not return what natural_key_fields says: {paths!r}",
            hint="derive the one from the other, or remove natural_key_fields",
            obj=model,
            id="backups.E010",
        )
    if not is_unique(model, {tuple(path.split("__")) for path in paths}):
        yield Warning(
            f"no constraint keeps the natural key of {label} unique: {', '.join(paths)}",
            hint="add a UniqueConstraint; without it two rows may have one key, and what refers to them means either",
            obj=model,
            id="backups.W007",
        )
    if nullable := [path for path, fields in zip(paths, steps, strict=True) if any(field.null for _, field in fields)]:
        yield Warning(
            f"the natural key of {label} may be null: {', '.join(nullable)}",
            hint="make the fields NOT NULL, or the key of others: NULL equals nothing, itself included",
            obj=model,
            id="backups.W008",
        )
    last = [(path, *fields[-1]) for path, fields in zip(paths, steps, strict=True)]
    if keys := [
        path for path, owner, field in last if field is owner._meta.pk and (owner is model or has_automatic_key(owner))
    ]:
        yield Warning(
            f"the natural key of {label} contains a primary key: {', '.join(keys)}",
            hint="dumpdata --natural-primary leaves primary keys out, and then nothing is left to find the row by",
            obj=model,
            id="backups.W009",
        )


def _steps(model: type[Model], path: str) -> Iterator[tuple[type[Model], AnyField]]:
    """Yield each field on the way to a column, with the model that it was found on."""
    *relations, last = path.split("__")
    for name in relations:
        field = get_field(model, name)
        yield model, field
        model = related_model(field)
    field = get_field(model, last)
    if not field.concrete:
        raise FieldDoesNotExist(last)
    yield model, field


def _depends_on_itself(model: type[Model]) -> bool:
    seen: set[type[Model]] = set()
    open_ends = [model]
    while open_ends:
        for needed in _dependencies(open_ends.pop()):
            if needed is model:
                return True
            if needed not in seen:
                seen.add(needed)
                open_ends.append(needed)
    return False


def _dependencies(model: type[Model]) -> Iterator[type[Model]]:
    """Yield the models that a natural key says it depends on, as ``dumpdata`` reads it, and those it leads through."""
    for label in getattr(getattr(model, "natural_key", None), "dependencies", ()):
        yield model._meta.apps.get_model(label)
    for path in natural_key_fields(model) or () if hasattr(model, "natural_key") else ():
        try:
            yield from [owner for owner, _ in _steps(model, path)][1:]
        except (FieldDoesNotExist, AttributeError):
            return  # which is reported where the path was declared


def _is_as_declared(model: type[Model], paths: tuple[str, ...]) -> bool:
    """Ask a row that nobody has stored for its natural key. True where it cannot be asked."""
    expected = [f"key {number}" for number in range(len(paths))]
    row = SimpleNamespace(**{field.name: None for field in model._meta.concrete_fields})
    for path, value in zip(paths, expected, strict=True):
        reached = row
        *relations, last = path.split("__")
        for name in relations:
            if not getattr(reached, name, None):
                setattr(reached, name, SimpleNamespace())
            reached = getattr(reached, name)
        setattr(reached, last, value)
    method = inspect.getattr_static(model, "natural_key")
    if not inspect.isfunction(method):
        return True  # such as core.natural_keys has, which is made of the fields
    try:
        return list(method(row)) == expected
    except (AttributeError, TypeError, ValueError, LookupError):
        return True


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
    named: list[Any] = [*_media_directories(), settings.MEDIA_ROOT, settings.STATIC_ROOT, *static]
    return list(dict.fromkeys(Path(directory).resolve() for directory in named if directory))


def _volume(path: Path) -> int:
    """Return the device that a path is on, or will be once it exists."""
    existing = next(one for one in (path, *path.parents) if one.exists())
    return existing.stat().st_dev
