"""What makes a row in two databases the same thing.

A model's identity is its natural key; failing that its first non-null unique field or constraint; failing that its
primary key. Foreign keys inside an identity are followed until plain columns are reached, so that an identity never
depends on keys that one database made up.

Two kinds of rows have no choice. One whose primary key is a reference (a one-to-one, a multi-table child) is the same
thing where the row that it belongs to is. One with a primary key that nobody makes up, and a natural key that nothing
keeps unique, is known by that primary key.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from functools import cache
from typing import Any, cast

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.contenttypes.fields import GenericForeignKey
from django.core.exceptions import FieldDoesNotExist
from django.db.models import AutoField, ForeignObjectRel, Model, UniqueConstraint
from django.db.models.fields import AutoFieldMixin
from django.utils.duration import duration_iso_string
from django.utils.functional import Promise

from backups.records.relations import get_field, key_model, related_model

DJANGO_NATURAL_KEYS = {
    "auth.group": ("name",),
    "auth.permission": ("codename", "content_type__app_label", "content_type__model"),
    "contenttypes.contenttype": ("app_label", "model"),
    "sites.site": ("domain",),
}
"""Django's own models, whose ``natural_key()`` carries no hint."""


class Rule(StrEnum):
    NATURAL = "natural"
    UNIQUE = "unique"
    PRIMARY_KEY = "primary_key"


@dataclass(frozen=True)
class Part:
    """One piece of an identity: a column reached over foreign keys, or a row whose ``natural_key()`` is called.

    ``path`` names fields; all but the last are foreign keys. With ``called``, the column holds the primary key of a
    row of that model.
    """

    path: tuple[str, ...]
    called: type[Model] | None = None

    def below(self, prefix: tuple[str, ...]) -> Part:
        return Part((*prefix, *self.path), self.called)


@dataclass(frozen=True)
class Identity:
    """``fields`` as declared on the model, ``parts`` as they are read."""

    rule: Rule
    fields: tuple[str, ...]
    parts: tuple[Part, ...]


@cache
def of_model(model: type[Model]) -> Identity:
    """Return the identity of a concrete model."""
    return next(_candidates(model, frozenset()))


@cache
def natural_key_parts(model: type[Model]) -> tuple[Part, ...] | None:
    """Return the parts of ``natural_key()``, or None where Django cannot use one in both directions."""
    if not hasattr(model, "natural_key") or not hasattr(model._default_manager, "get_by_natural_key"):
        return None
    fields = natural_key_fields(model)
    if fields is None:
        return (Part(("pk",), model),)
    if set(fields) & {object_id for _, object_id in generic_columns(model)}:
        return None  # the key of whatever row a generic foreign key means, as in taggit
    return tuple(Part(tuple(path.split("__"))) for path in fields)


def natural_key_of(instance: Model) -> list[Any]:
    """Call ``natural_key()``; what JSON has no form for is written as Django's own encoder does."""
    return [_part_of_key(value) for value in cast("Any", instance).natural_key()]


def _part_of_key(value: Any) -> Any:
    if isinstance(value, timedelta):
        return duration_iso_string(value)
    return str(value) if isinstance(value, Decimal | Promise) else value


def natural_key_fields(model: type[Model]) -> tuple[str, ...] | None:
    """Return the paths that a model's natural key is made of, or None where only ``natural_key()`` knows."""
    declared = getattr(model, "natural_key_fields", None)
    if declared is not None:
        return tuple(declared)
    if known := DJANGO_NATURAL_KEYS.get(model._meta.label_lower):
        return known
    if issubclass(model, AbstractBaseUser) and model.natural_key is AbstractBaseUser.natural_key:
        return (str(cast("Any", model).USERNAME_FIELD),)
    return None


def has_automatic_key(model: type[Model]) -> bool:
    """Return whether the database makes up the primary key, so that another one would do as well."""
    return isinstance(model._meta.pk, (AutoField, AutoFieldMixin))


def keeps_natural_key_unique(model: type[Model]) -> bool:
    """Return whether a constraint keeps the natural key unique; False also where only ``natural_key()`` knows it."""
    fields = {path.split("__")[0] for path in natural_key_fields(model) or ()}
    pk = model._meta.pk.name
    sets = [set(names) for names in unique_sets(model)] + [{pk}]
    return any(names <= fields and not any(get_field(model, name).null for name in names) for names in sets)


def is_unique(model: type[Model], paths: set[tuple[str, ...]]) -> bool:
    """Return whether constraints keep what a set of paths leads to unique, each reference followed to its row."""
    sets = [names for owner in (model, *model._meta.all_parents) for names in unique_sets(owner)]
    sets.append((model._meta.pk.name,))
    return any(all(_is_pinned(model, name, paths) for name in names) for names in sets)


def _is_pinned(model: type[Model], name: str, paths: set[tuple[str, ...]]) -> bool:
    """Return whether paths determine a column: they lead to it, or say which row it refers to."""
    if (name,) in paths or (name == model._meta.pk.name and ("pk",) in paths):
        return True
    field = get_field(model, name)
    below = {path[1:] for path in paths if path[0] == name and len(path) > 1}
    return field.remote_field is not None and bool(below) and is_unique(related_model(field), below)


def _candidates(model: type[Model], above: frozenset[type[Model]]) -> Iterator[Identity]:
    above |= {model}
    pk = model._meta.pk
    if pk.remote_field and key_model(pk) and (parts := _expand(model, pk.name, above)):
        yield Identity(Rule.PRIMARY_KEY, (pk.name,), parts)
    natural = natural_key_parts(model)
    if natural and (has_automatic_key(model) or keeps_natural_key_unique(model)):
        yield Identity(Rule.NATURAL, natural_key_fields(model) or (), natural)
    for fields in unique_sets(model):
        expanded = [_expand(model, name, above) for name in fields]
        if all(parts is not None for parts in expanded):
            yield Identity(Rule.UNIQUE, fields, tuple(part for parts in expanded for part in parts or ()))
    columns = [_expand(model, field.name, above) or (Part((field.name,)),) for field in model._meta.pk_fields]
    yield Identity(Rule.PRIMARY_KEY, (pk.name,), tuple(part for parts in columns for part in parts))


def unique_sets(model: type[Model]) -> Iterator[tuple[str, ...]]:
    """Yield the sets of fields that the database keeps unique and not null, in the order of their declaration."""
    options = model._meta
    yield from ((field.name,) for field in options.local_concrete_fields if field.unique and not field.primary_key)
    yield from (tuple(names) for names in options.unique_together)
    for constraint in options.constraints:
        if isinstance(constraint, UniqueConstraint) and constraint.condition is None and not constraint.expressions:
            yield tuple(constraint.fields)


def generic_columns(model: type[Model]) -> Iterator[tuple[str, str]]:
    """Yield the names of content type and object field of a model's own generic foreign keys."""
    local = {field.name for field in model._meta.local_concrete_fields}
    for field in model._meta.private_fields:
        if isinstance(field, GenericForeignKey) and {field.ct_field, field.fk_field} <= local:
            yield field.ct_field, field.fk_field


def _expand(model: type[Model], name: str, above: frozenset[type[Model]]) -> tuple[Part, ...] | None:
    """Follow one field of a unique set to plain columns.

    None where it is null, inherited or turns in a circle. What a generic foreign key means is no column that a join
    reaches, so that it identifies a row only where no other row has to be told which one is meant.
    """
    try:
        field = get_field(model, name)
    except FieldDoesNotExist:
        return None
    if field.null or field not in model._meta.local_concrete_fields:
        return None
    if any(name == object_field for _, object_field in generic_columns(model)) and (
        len(above) > 1 or _has_referrers(model)
    ):
        return None
    if field.remote_field is None or key_model(field) is None:
        return (Part((name,)),)
    related = related_model(field)
    if related in above:
        return None
    identity = next(_candidates(related, above))
    if identity.fields == (related._meta.pk.name,) and not related._meta.pk.remote_field:
        return (Part((name,)),)
    return tuple(part.below((name,)) for part in identity.parts)


def _has_referrers(model: type[Model]) -> bool:
    """Return whether a column of another table, or of this one, refers to rows of a model."""
    relations = (one for one in model._meta.get_fields(include_hidden=True) if isinstance(one, ForeignObjectRel))
    return any(cast("Any", relation.field).column for relation in relations)
