"""What makes a row in two databases the same thing.

A model's identity is its natural key; failing that its first non-null unique field or constraint; failing that its
primary key. Foreign keys inside an identity are followed until plain columns are reached, so that an identity never
depends on keys that one database made up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any, cast

from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import FieldDoesNotExist
from django.db.models import AutoField, Model, UniqueConstraint
from django.db.models.fields import AutoFieldMixin

from backups.records.relations import get_field, related_model, target_field

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
    return tuple(Part(tuple(path.split("__"))) for path in fields)


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


def _candidates(model: type[Model], above: frozenset[type[Model]]) -> Iterator[Identity]:
    if parts := natural_key_parts(model):
        yield Identity(Rule.NATURAL, natural_key_fields(model) or (), parts)
    above |= {model}
    for fields in unique_sets(model):
        expanded = [_expand(model, name, above) for name in fields]
        if all(parts is not None for parts in expanded):
            yield Identity(Rule.UNIQUE, fields, tuple(part for parts in expanded for part in parts or ()))
    pk = model._meta.pk
    # A key that is itself a reference (one-to-one, multi-table child) is the identity of the row it refers to.
    parts = _expand(model, pk.name, above) if pk.remote_field else None
    yield Identity(Rule.PRIMARY_KEY, (pk.name,), parts or _columns_of_key(model))


def _columns_of_key(model: type[Model]) -> tuple[Part, ...]:
    return tuple(Part((field.name,)) for field in getattr(model._meta, "pk_fields", (model._meta.pk,)))


def unique_sets(model: type[Model]) -> Iterator[tuple[str, ...]]:
    """Yield the sets of fields that the database keeps unique and not null, in the order of their declaration."""
    options = model._meta
    yield from ((field.name,) for field in options.local_concrete_fields if field.unique and not field.primary_key)
    yield from (tuple(names) for names in options.unique_together)
    for constraint in options.constraints:
        if isinstance(constraint, UniqueConstraint) and constraint.condition is None and not constraint.expressions:
            yield tuple(constraint.fields)


def _expand(model: type[Model], name: str, above: frozenset[type[Model]]) -> tuple[Part, ...] | None:
    """Follow one field of a unique set to plain columns. None where it is null, inherited or turns in a circle."""
    try:
        field = get_field(model, name)
    except FieldDoesNotExist:
        return None
    if field.null or field not in model._meta.local_concrete_fields:
        return None
    if field.remote_field is None or target_field(field).name != related_model(field)._meta.pk.name:
        return (Part((name,)),)
    related = related_model(field)
    if related in above:
        return None
    identity = next(_candidates(related, above))
    if identity.rule is Rule.PRIMARY_KEY and not related._meta.pk.remote_field:
        return (Part((name,)),)
    return tuple(part.below((name,)) for part in identity.parts)
