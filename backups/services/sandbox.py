"""A throwaway system in this process: an empty database on the same engine, and empty storages."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.contenttypes.models import ContentType
from django.core.files.storage import FileSystemStorage, default_storage, storages
from django.core.management import call_command
from django.db import connections
from django.db.models import FileField

from backups import databases, files, reports

PREFIX = "drill_"
SCRATCH = "scratch"
"""The option in a drill's report that names the directory for its scratch system: TMPDIR may be another one now."""


@contextmanager
def sandbox(using: str) -> Iterator[None]:
    """Let the alias ``using`` and all storages stand for an empty, migrated scratch system while inside.

    The live database and its files are out of reach until the end, when the scratch system is dropped.
    """
    with ExitStack() as stack:
        prefix = f"{PREFIX}{databases.of(using).key}_"
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix)))
        stack.enter_context(_database(using, directory))
        stack.enter_context(_storages(directory))
        call_command("migrate", database=using, verbosity=0, interactive=False)
        yield


def remove_left(using: str) -> None:
    """Remove the scratch systems of drills that died. To be called by who holds the lock of the drills."""
    administration = databases.of(using)
    prefix = f"{PREFIX}{administration.key}_"
    for name in administration.databases(prefix):
        administration.drop_database(name)
    places = {tempfile.gettempdir(), *reports.options_of_interrupted(using, "drill", SCRATCH)}
    for directory in (directory for place in places for directory in Path(place).glob(f"{prefix}*")):
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _database(using: str, directory: Path) -> Iterator[None]:
    live = connections[using]
    administration = databases.of(using)
    name = administration.scratch_name(directory, f"{PREFIX}{administration.key}_{uuid.uuid4().hex[:12]}")
    administration.create_database(name)
    original = connections.settings[using]
    connections.settings[using] = {**original, "NAME": name}
    del connections[using]
    try:
        ContentType.objects.clear_cache()
        yield
    finally:
        connections[using].close()
        connections.settings[using] = original
        connections[using] = live
        ContentType.objects.clear_cache()
        administration.drop_database(name)


@contextmanager
def _storages(directory: Path) -> Iterator[None]:
    """Put empty directories in place of the storages of every file field, and of the packages."""
    fields = [
        field
        for model in apps.get_models(include_auto_created=True)
        for field in model._meta.local_fields
        if isinstance(field, FileField)
    ]
    with ExitStack() as stack:
        for number, alias in enumerate(settings.STORAGES):
            live, scratch = storages[alias], FileSystemStorage(location=directory / f"storage-{number}")
            stack.enter_context(_replaced(vars(storages)["_storages"], alias, scratch))
            for field in fields:
                if field.storage is live:
                    stack.enter_context(_replaced(field.__dict__, "storage", scratch))
        stack.enter_context(_replaced(default_storage.__dict__, "_wrapped", storages["default"]))
        for number, field in enumerate(fields):
            if files.storage_alias(field) not in settings.STORAGES:
                scratch = FileSystemStorage(location=directory / f"field-{number}")
                stack.enter_context(_replaced(field.__dict__, "storage", scratch))
        yield


@contextmanager
def _replaced(mapping: dict[str, Any], key: str, value: Any) -> Iterator[None]:
    original = mapping[key]
    mapping[key] = value
    try:
        yield
    finally:
        mapping[key] = original
