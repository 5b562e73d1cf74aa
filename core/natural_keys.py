"""Natural keys, declared as data: ``natural_key_fields = ("document__number", "major")``.

A path may traverse relations, and ends at a column. Each model backs its paths with a uniqueness constraint over
columns that are not null.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, reduce
from typing import Any, ClassVar, Self, TypeVar

from django.db import models

Model = TypeVar("Model", bound=models.Model, covariant=True)


class NaturalKeyManager(models.Manager[Model]):
    """Looks rows up by their natural key. Django asks the default manager, so it has to be that one."""

    def get_by_natural_key(self, *values: Any) -> Model:
        """Return the row with these values, in the order of ``natural_key_fields``."""
        paths: Sequence[str] = self.model.natural_key_fields  # type: ignore[attr-defined]
        return self.get(**dict(zip(paths, values, strict=True)))


class NaturalKey:
    """``natural_key`` of a class, with the ``dependencies`` that Django asks for there, and of its instances."""

    def __get__(self, instance: models.Model | None, owner: type[models.Model]) -> BoundNaturalKey:
        return BoundNaturalKey(instance, owner)


class BoundNaturalKey:
    __slots__ = ("instance", "model")

    def __init__(self, instance: models.Model | None, model: type[models.Model]) -> None:
        self.instance = instance
        self.model = model

    def __call__(self) -> tuple[Any, ...]:
        return tuple(reduce(getattr, names, self.instance) for names in _paths(self.model))

    @property
    def dependencies(self) -> list[str]:
        """Labels of the models that the paths traverse into. A new list, because Django appends to it."""
        return list(_dependencies(self.model))


class NaturalKeyModel(models.Model):
    """A model that is known by ``natural_key_fields`` in every database."""

    natural_key_fields: ClassVar[tuple[str, ...]]
    natural_key = NaturalKey()
    objects: ClassVar[NaturalKeyManager[Self]] = NaturalKeyManager()

    class Meta:
        abstract = True


@cache
def _paths(model: type[models.Model]) -> tuple[list[str], ...]:
    return tuple(path.split("__") for path in model.natural_key_fields)  # type: ignore[attr-defined]


@cache
def _dependencies(model: type[models.Model]) -> tuple[str, ...]:
    labels: dict[str, None] = {}
    for *relations, _ in _paths(model):
        reached: Any = model
        for name in relations:
            reached = reached._meta.get_field(name).related_model
            labels[reached._meta.label_lower] = None
    return tuple(labels)
