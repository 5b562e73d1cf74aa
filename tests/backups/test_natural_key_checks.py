"""A natural key that cannot work is found by ``manage.py check``, before a row is lost to it."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.contrib.auth.models import User
from django.db import models
from django.test.utils import isolate_apps

from backups import checks
from core.natural_keys import NaturalKeyModel


class ByNumber(models.Manager[Any]):
    def get_by_natural_key(self, *key: Any) -> Any:
        return self.get(number=key[0])


class Keyed(models.Model):
    """A model that is known by a number, and that its tests make unsound."""

    number = models.IntegerField(unique=True)
    objects = ByNumber()
    natural_key_fields = ("number",)

    def natural_key(self) -> tuple[Any, ...]:
        return (self.number,)

    class Meta:
        abstract = True
        app_label = "backups"


def codes(model: type[models.Model]) -> list[str | None]:
    messages = list(checks._check_natural_key(model))
    assert all(message.hint and message.obj is model for message in messages)
    return [message.id for message in messages]


@isolate_apps("backups")
def test_a_sound_key_passes() -> None:
    class Sound(Keyed):
        pass

    class Below(NaturalKeyModel):
        natural_key_fields = ("sound__number", "place")
        sound = models.ForeignKey(Sound, models.CASCADE)
        place = models.IntegerField()

        class Meta:
            app_label = "backups"
            constraints = [models.UniqueConstraint(fields=["sound", "place"], name="place")]

    class Child(Sound):
        colour = models.CharField(max_length=10)

        class Meta:
            app_label = "backups"

    assert codes(Sound) == codes(Below) == codes(Child) == []


@isolate_apps("backups")
def test_a_look_up_on_the_model_itself_is_an_error() -> None:
    class Misplaced(models.Model):
        number = models.IntegerField(unique=True)

        class Meta:
            app_label = "backups"

        def natural_key(self) -> tuple[int]:
            return (self.number,)

        @classmethod
        def get_by_natural_key(cls, number: int) -> Any:
            return cls._default_manager.get(number=number)

    assert codes(Misplaced) == ["backups.E007"]


@isolate_apps("backups")
def test_a_look_up_on_another_manager_than_the_default_is_no_natural_key() -> None:
    class Unused(models.Model):
        number = models.IntegerField(unique=True)
        rows = models.Manager["Unused"]()
        objects = ByNumber()

        class Meta:
            app_label = "backups"

        def natural_key(self) -> tuple[int]:
            return (self.number,)

    assert codes(Unused) == ["backups.E007"]


@isolate_apps("backups")
def test_a_circle_is_an_error() -> None:
    class Itself(NaturalKeyModel):
        natural_key_fields = ("parent__name", "name")
        parent = models.ForeignKey("self", models.CASCADE)
        name = models.CharField(max_length=10, unique=True)

        class Meta:
            app_label = "backups"

    assert codes(Itself) == ["backups.E008"]


@isolate_apps("backups")
def test_a_circle_over_another_model_is_an_error() -> None:
    class One(NaturalKeyModel):
        natural_key_fields = ("other__number",)
        number = models.IntegerField(unique=True)
        other = models.OneToOneField("Other", models.CASCADE)

        class Meta:
            app_label = "backups"

    class Other(NaturalKeyModel):
        natural_key_fields = ("one__number",)
        number = models.IntegerField(unique=True)
        one = models.OneToOneField(One, models.CASCADE)

        class Meta:
            app_label = "backups"

    assert codes(One) == codes(Other) == ["backups.E008"]


@isolate_apps("backups")
def test_a_path_to_nothing_is_an_error() -> None:
    class Misspelt(Keyed):
        natural_key_fields = ("nummer",)

    class Through(Keyed):
        natural_key_fields = ("number__name",)

    assert codes(Misspelt) == codes(Through) == ["backups.E009"]


@isolate_apps("backups")
def test_a_key_that_is_not_as_declared_is_an_error() -> None:
    class Shifted(Keyed):
        place = models.IntegerField()

        def natural_key(self) -> tuple[Any, ...]:
            return (self.place,)

    class Longer(Keyed):
        place = models.IntegerField()
        natural_key_fields = ("number", "place")

    assert codes(Shifted) == codes(Longer) == ["backups.E010"]


@isolate_apps("backups")
def test_a_key_that_is_not_unique_is_a_warning() -> None:
    class Free(Keyed):
        number = models.IntegerField()

    class PartlyUnique(Keyed):
        number = models.IntegerField()

        class Meta:
            app_label = "backups"
            constraints = [
                models.UniqueConstraint(fields=["number"], condition=models.Q(number__gt=0), name="positive")
            ]

    class UniqueBeyond(Keyed):
        number = models.IntegerField()
        place = models.IntegerField()

        class Meta:
            app_label = "backups"
            unique_together = [("number", "place")]

    assert codes(Free) == codes(PartlyUnique) == codes(UniqueBeyond) == ["backups.W007"]


@isolate_apps("backups")
def test_a_key_over_a_row_that_is_not_known_is_a_warning() -> None:
    class Named(models.Model):
        name = models.CharField(max_length=10)

        class Meta:
            app_label = "backups"

    class Over(NaturalKeyModel):
        natural_key_fields = ("named__name",)
        named = models.OneToOneField(Named, models.CASCADE)

        class Meta:
            app_label = "backups"

    assert codes(Over) == ["backups.W007"]


@isolate_apps("backups")
def test_a_key_that_may_be_null_is_a_warning() -> None:
    class Nullable(Keyed):
        number = models.IntegerField(unique=True, null=True)

    assert codes(Nullable) == ["backups.W008"]


@isolate_apps("backups")
def test_a_key_that_contains_the_primary_key_is_a_warning() -> None:
    class Code(Keyed):
        number = models.IntegerField(primary_key=True)

    assert codes(Code) == ["backups.W009"]


def test_our_own_models_and_djangos_are_sound() -> None:
    assert checks.check_natural_keys() == []
    assert hasattr(User._default_manager, "get_by_natural_key")


def test_only_the_apps_asked_for_are_checked() -> None:
    assert checks.check_natural_keys([apps.get_app_config("auth")]) == []
