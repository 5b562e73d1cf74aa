"""Models whose rows are written once."""

from __future__ import annotations

from typing import Any, ClassVar, Never, Self

from django.db import models

from core.natural_keys import Model, NaturalKeyManager, NaturalKeyModel


class AppendOnlyError(Exception):
    """A row that is written once was to be changed or deleted."""


class AppendOnlyQuerySet(models.QuerySet[Model]):
    def update(self, **kwargs: Any) -> Never:
        raise AppendOnlyError(f"{self.model._meta.label} is append-only: its rows are never changed")

    def bulk_update(self, *args: Any, **kwargs: Any) -> Never:
        self.update()

    def delete(self) -> Never:
        raise AppendOnlyError(f"{self.model._meta.label} is append-only: its rows are never deleted")


class AppendOnlyManager(NaturalKeyManager[Model]):
    def get_queryset(self) -> AppendOnlyQuerySet[Model]:
        return AppendOnlyQuerySet(self.model, using=self._db)


class AppendOnlyModel(NaturalKeyModel):
    """A model that refuses changes. Deserialisation, which saves raw rows, is not refused."""

    objects: ClassVar[AppendOnlyManager[Self]] = AppendOnlyManager()

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise AppendOnlyError(f"{self._meta.label} is append-only: {self} is never changed")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> Never:
        raise AppendOnlyError(f"{self._meta.label} is append-only: {self} is never deleted")
