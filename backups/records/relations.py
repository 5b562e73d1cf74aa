"""What a foreign key refers to, with the types that Django's stubs leave open."""

from __future__ import annotations

from typing import Any, TypeAlias, cast

from django.db.models import SET_NULL, Field, ForeignKey, Model

AnyField: TypeAlias = "Field[Any, Any]"


def related_model(field: AnyField) -> type[Model]:
    """Return the concrete model that a foreign key or one-to-one refers to."""
    related = cast("type[Model]", field.related_model)
    return cast("type[Model]", related._meta.concrete_model)


def target_field(field: AnyField) -> AnyField:
    """Return the field of the related model whose value a foreign key holds."""
    return cast("ForeignKey[Any, Any]", field).target_field


def final_field(field: AnyField) -> AnyField:
    """Follow a foreign key, which may refer to another foreign key, to the field that holds the value."""
    while field.remote_field is not None:
        field = target_field(field)
    return field


def key_model(field: AnyField) -> type[Model] | None:
    """Return the model whose primary key a foreign key holds, or None where it holds another column's value.

    A foreign key to another foreign key (``to_field``) holds what that one holds.
    """
    target, model = target_field(field), related_model(field)
    if target.name == model._meta.pk.name:
        return model
    return key_model(target) if target.remote_field is not None else None


def column_of(field: AnyField) -> str:
    """Return the column of a concrete field."""
    return cast("str", field.column)


def has_constraint(field: AnyField) -> bool:
    """Return whether the database itself keeps a foreign key from dangling."""
    return bool(cast("Any", field).db_constraint)


def is_emptied(field: AnyField) -> bool:
    """Return whether deleting a row empties the foreign keys that refer to it."""
    return cast("Any", field).remote_field.on_delete is SET_NULL


def get_field(model: type[Model], name: str) -> AnyField:
    """Return a model's field by name; ``pk`` names the primary key."""
    return cast("AnyField", model._meta.pk if name == "pk" else model._meta.get_field(name))
