"""Decides whether two systems are equal without the engine's own code: ORM values and file hashes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from django.apps import apps
from django.contrib.contenttypes.fields import GenericForeignKey
from django.contrib.contenttypes.models import ContentType
from django.db.models import AutoField, Model

IGNORED = {"sessions.session"}

Rows = dict[str, list[tuple[tuple[str, str], ...]]]


def rows(using: str = "default", *, ignore: set[str] = frozenset()) -> Rows:
    """Return every row of every model, references replaced by what they mean, automatic keys left out."""
    return {
        model._meta.label_lower: sorted(_row(instance, using) for instance in model._base_manager.using(using))
        for model in apps.get_models(include_auto_created=True)
        if not model._meta.proxy
        and model._meta.app_label != "backups"
        and model._meta.label_lower not in IGNORED | ignore
    }


def keys(using: str = "default") -> dict[str, list[Any]]:
    """Return the primary keys of every model."""
    return {
        model._meta.label_lower: sorted(model._base_manager.using(using).values_list("pk", flat=True), key=str)
        for model in apps.get_models(include_auto_created=True)
        if not model._meta.proxy and model._meta.app_label != "backups"
    }


def files(directory: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a directory by its relative name."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def _row(instance: Model, using: str) -> tuple[tuple[str, str], ...]:
    generic = {
        field.fk_field: field.ct_field
        for field in instance._meta.private_fields
        if isinstance(field, GenericForeignKey)
    }
    values = {}
    for field in instance._meta.local_concrete_fields:
        value = field.value_from_object(instance)
        if isinstance(field, AutoField) and _can_be_renumbered(type(instance)):
            continue
        if field.remote_field and value is not None:
            value = _meaning(field.related_model, {field.target_field.attname: value}, using)
        elif field.name in generic and value is not None:
            content_type = getattr(instance, instance._meta.get_field(generic[field.name]).attname)
            if content_type is not None:
                model = ContentType.objects.db_manager(using).get_for_id(content_type).model_class()
                value = _meaning(model, {"pk": model._meta.pk.to_python(value)}, using)
        values[field.name] = repr(value)
    return tuple(sorted(values.items()))


def _can_be_renumbered(model: type[Model]) -> bool:
    return hasattr(model, "natural_key") or model._meta.auto_created is not False


def _meaning(model: type[Model], key: dict[str, Any], using: str) -> Any:
    found = model._base_manager.using(using).filter(**key).first()
    if found is None:
        return f"nothing at {key}"
    return (model._meta.label_lower, *found.natural_key()) if hasattr(found, "natural_key") else found.pk
