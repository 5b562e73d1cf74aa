"""Decides whether two systems are equal without the engine's own code: ORM values and file hashes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from django.apps import apps
from django.contrib.contenttypes.fields import GenericForeignKey
from django.contrib.contenttypes.models import ContentType
from django.db import connections
from django.db.models import AutoField, JSONField, Model

IGNORED = {"sessions.session"}

Rows = dict[str, list[tuple[tuple[str, str], ...]]]


def rows(using: str = "default", *, ignore: set[str] = frozenset()) -> Rows:
    """Return every row of every model, with what its references mean, and without automatic keys that may change."""
    meanings = _Meanings(using)
    return {
        model._meta.label_lower: sorted(meanings.row(instance) for instance in model._base_manager.using(using))
        for model in apps.get_models(include_auto_created=True)
        if not model._meta.proxy
        and model._meta.app_label != "backups"
        and model._meta.label_lower not in IGNORED | ignore
    }


def differences(expected: Rows, found: Rows) -> list[str]:
    """Name the rows and values that two sets of rows do not have in common, for people to read."""
    lines = []
    for label in sorted(expected.keys() | found.keys()):
        lost = [row for row in expected.get(label, ()) if row not in found.get(label, ())]
        new = [row for row in found.get(label, ()) if row not in expected.get(label, ())]
        if len(lost) == len(new):
            pairs = [set(one) ^ set(other) for one, other in zip(lost, new, strict=True)]
            lines += [f"{label}: {sorted(values)}" for values in pairs]
        else:
            lines += [f"{label} lacks {row}" for row in lost] + [f"{label} has {row}" for row in new]
        if not lost and not new and len(expected.get(label, ())) != len(found.get(label, ())):
            lines.append(f"{label}: {len(expected.get(label, ()))} rows, {len(found.get(label, ()))} found")
    return lines


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


class _Meanings:
    """What the rows of one database mean at one moment. Each row that is referred to is read once."""

    def __init__(self, using: str) -> None:
        self._using = using
        self._known: dict[tuple[type[Model], str, Any], Any] = {}

    def row(self, instance: Model, only: set[str] | None = None) -> tuple[tuple[str, str], ...]:
        generic = {
            field.fk_field: field.ct_field
            for field in instance._meta.private_fields
            if isinstance(field, GenericForeignKey)
        }
        values = {}
        for field in instance._meta.local_concrete_fields:
            if only is not None and field.name not in only:
                continue
            value = field.value_from_object(instance)
            if isinstance(field, AutoField) and _identity(type(instance)) is not None:
                continue
            if field.remote_field and value is not None:
                value = self._meaning(field.related_model, field.target_field.attname, value)
            elif field.name in generic and value is not None:
                content_type = getattr(instance, instance._meta.get_field(generic[field.name]).attname)
                if content_type is not None:
                    model = ContentType.objects.db_manager(self._using).get_for_id(content_type).model_class()
                    value = self._meaning(model, "pk", model._meta.pk.to_python(value))
            elif isinstance(field, JSONField) and value is None:
                value = "SQL NULL" if self._is_null(instance, field) else "JSON null"
            elif isinstance(value, memoryview):
                value = bytes(value)
            values[field.name] = repr(_sorted(value) if isinstance(field, JSONField) else value)
        return tuple(sorted(values.items()))

    def _meaning(self, model: type[Model], name: str, value: Any) -> Any:
        key = (model, name, value)
        if key not in self._known:
            self._known[key] = self._read(*key)
        return self._known[key]

    def _read(self, model: type[Model], name: str, value: Any) -> Any:
        """Say which row a reference means, without a primary key that is automatic where there is another way."""
        found = model._base_manager.using(self._using).filter(**{name: value}).first()
        if found is None:
            return f"nothing at {name} {value!r}"
        names = _identity(model)
        if names is None or not isinstance(model._meta.pk, AutoField):
            parent = model._meta.pk.remote_field
            return self._meaning(parent.model, "pk", found.pk) if parent else (model._meta.label_lower, found.pk)
        return (model._meta.label_lower, *self.row(found, _fields(model, names)))

    def _is_null(self, instance: Model, field: JSONField) -> bool:
        quote = connections[self._using].ops.quote_name
        with connections[self._using].cursor() as cursor:
            cursor.execute(
                f"SELECT {quote(field.column)} IS NULL FROM {quote(instance._meta.db_table)}"
                f" WHERE {quote(instance._meta.pk.column)} = %s",
                [instance._meta.pk.get_db_prep_value(instance.pk, connections[self._using])],
            )
            return bool(cursor.fetchone()[0])


def _sorted(value: Any) -> Any:
    """Return JSON data with its keys in order, which PostgreSQL does not keep."""
    if isinstance(value, dict):
        return {key: _sorted(item) for key, item in sorted(value.items())}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def _identity(model: type[Model]) -> list[str] | None:
    """Name what identifies a row beside its primary key: every field of an automatic table, or the unique ones."""
    own = model._meta.local_concrete_fields
    if model._meta.auto_created:
        return [field.attname for field in own if not field.primary_key]
    unique = [field.attname for field in own if field.unique and not field.primary_key and not field.null]
    sets = [list(names) for names in model._meta.unique_together]
    sets += [list(one.fields) for one in model._meta.total_unique_constraints]
    return next(iter([unique[:1]] * bool(unique) + sets), None)


def _fields(model: type[Model], names: list[str]) -> set[str]:
    return {field.name for field in model._meta.local_concrete_fields if {field.name, field.attname} & set(names)}
