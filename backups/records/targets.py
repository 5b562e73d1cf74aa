"""What the references of a record mean: the rows that they lead to, or led to at the source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from django.apps import apps
from django.db.models import Model

from backups.records.identity import Rule, has_automatic_key, of_model
from backups.records.record import Key, Record
from backups.records.relations import get_field, related_model
from backups.records.table import Reference, Table, is_key_number


@dataclass(frozen=True, slots=True)
class Target:
    """What one reference of a record means: the primary key at the source, and the identity where there is one.

    ``value`` is None where only the identity is known.
    """

    field: str
    label: str
    value: Any
    key: Key | None
    nullable: bool
    generic: bool
    dangled: bool = False
    """Meant nothing at the source, so that it must mean nothing in the target."""


def targets(table: Table, record: Record) -> Iterator[Target]:
    """Yield what the references of a record mean."""
    for reference in table.references:
        if record.fields[reference.name] is None or reference.keys_of is None or has_dangled(reference, record):
            continue
        yield target_of(reference, record)
    yield from generic_targets(table, record)


def target_of(reference: Reference, record: Record) -> Target:
    """Return what a foreign key of a record means. It must not be null, nor have dangled."""
    name, keys_of = reference.name, cast("type[Model]", reference.keys_of)
    value = record.fields[name]
    key = value if name in record.refs else record.keys.get(name)
    if keys_of is not reference.to:
        key = None  # it holds another row's primary key than that of the row it refers to
    label = keys_of._meta.label_lower
    return Target(name, label, record.refs.get(name, value), key, reference.field.null, generic=False)


def generic_targets(table: Table, record: Record) -> Iterator[Target]:
    """Yield what the generic foreign keys of a record mean."""
    for generic in table.generics:
        key = record.keys.get(generic.object_id)
        if key is not None:
            label, *identity = key
            value = int(record.fields[generic.object_id])
            yield Target(generic.object_id, label, value, identity, nullable=False, generic=True)


def dangling(table: Table, record: Record) -> Iterator[Target]:
    """Yield the references of a record that meant nothing at the source."""
    for reference in table.references:
        value = record.fields[reference.name]
        if value is not None and reference.keys_of is not None and has_dangled(reference, record):
            label = reference.keys_of._meta.label_lower
            yield Target(reference.name, label, value, None, reference.field.null, generic=False, dangled=True)
    for generic in table.generics:
        value = record.fields[generic.object_id]
        if value is None or generic.object_id in record.keys:
            continue
        model = generic.to or _model_of(record.fields[generic.content_type])
        if model is not None and _may_have_another_key(model):
            if not is_key_number(value):
                continue
            nullable = get_field(table.model, generic.object_id).null
            label = model._meta.label_lower
            yield Target(generic.object_id, label, int(value), None, nullable, generic=True, dangled=True)


def _may_have_another_key(model: type[Model]) -> bool:
    """Return whether the same row may have another primary key elsewhere: made up, or that of a row that has one."""
    if model._meta.pk.remote_field is not None:
        return _may_have_another_key(related_model(model._meta.pk))
    return has_automatic_key(model) and of_model(model).rule is not Rule.PRIMARY_KEY


def _model_of(content_type: Any) -> type[Model] | None:
    """Return the model that a content type's natural key names, or None where it is stale or dangles itself."""
    if not isinstance(content_type, list):
        return None
    model = apps.all_models.get(content_type[0], {}).get(content_type[1])
    return None if model is None else cast("type[Model]", model._meta.concrete_model)  # a proxy's keys are those of it


def has_dangled(reference: Reference, record: Record) -> bool:
    """Return whether a reference meant nothing at the source: it has a key, and neither number nor identity with it."""
    return bool(reference.parts) and reference.name not in record.refs and reference.name not in record.keys
