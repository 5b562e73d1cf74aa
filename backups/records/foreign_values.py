"""Values of fixtures as records hold them: the text and types that a serialiser wrote, in the one form of a package."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime, time
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ValidationError
from django.db.models import (
    CharField,
    DateTimeField,
    DecimalField,
    IntegerField,
    JSONField,
    Model,
    TextField,
    TimeField,
)
from django.db.models.fields import NOT_PROVIDED
from django.utils import timezone

from backups.records.identity import Part
from backups.records.jsontext import Number, dumps, exact_loads, loads
from backups.records.record import Key
from backups.records.relations import AnyField, final_field, get_field, related_model
from backups.records.values import encoder

REFUSED = (ValueError, TypeError, ArithmeticError, ValidationError)
"""What fields raise for a value that they do not take."""

_MILLISECONDS = re.compile(r":\d\d\.\d{3}(?!\d)")
_MORE = re.compile(r":\d\d\.(?!\d{3}(?!\d))\d")

Normaliser = Callable[[Any, bool], Any]
"""From a fixture's value, None excepted, and whether it is bare text as in XML, to what a record holds."""


def normaliser(field: AnyField) -> Normaliser:
    """Return what turns a field's value in a fixture into its value in a record. It raises ``REFUSED``."""
    final = final_field(field)
    if isinstance(final, JSONField):
        return _json_value
    encode = encoder(final)
    keeps_blanks = isinstance(final, CharField | TextField)

    def normalise(value: Any, is_text: bool) -> Any:
        if is_text and not keeps_blanks:
            value = value.strip()
        if isinstance(value, Number):
            value = Decimal(value.text)
        if keeps_blanks and isinstance(value, list | dict):
            raise TypeError("not text")  # which the field would write as Python does
        if isinstance(final, IntegerField) and isinstance(value, float | Decimal) and value != int(value):
            raise ValueError(f"{value} is not an integer")
        value = _python(final, value)
        if value is not None and encode is not None:
            value = encode(value)
        return value if type(value) in (str, int, bool) else loads(dumps(value))

    return normalise


def _json_value(value: Any, is_text: bool) -> Any:
    return exact_loads(value) if is_text else value


def _python(field: AnyField, value: Any) -> Any:
    """Give a value the type and the form in which a database would return it."""
    value = field.to_python(value)
    if isinstance(field, DateTimeField) and isinstance(value, datetime):
        if settings.USE_TZ and timezone.is_naive(value):
            return timezone.make_aware(value)  # as loaddata does, in the project's time zone
        if not settings.USE_TZ and timezone.is_aware(value):
            return timezone.make_naive(value)
    if isinstance(field, DecimalField) and isinstance(value, Decimal) and value.is_finite():
        places = field.decimal_places
        if places is not None and (exact := value.quantize(Decimal(1).scaleb(-places))) == value:
            return exact
    return value


def lacks_time_zone(field: AnyField, value: Any) -> bool:
    """Return whether a time is given without a time zone where the project keeps times with one."""
    if not settings.USE_TZ or not isinstance(field, DateTimeField):
        return False
    parsed = field.to_python(value.strip() if isinstance(value, str) else value)
    return isinstance(parsed, datetime) and timezone.is_naive(parsed)


class Precision:
    """Whether the times of one field were cut to milliseconds, which their texts tell."""

    def __init__(self) -> None:
        self.milliseconds = 0
        self.more = 0

    @staticmethod
    def concerns(field: AnyField) -> bool:
        return isinstance(final_field(field), DateTimeField | TimeField)

    def see(self, value: Any) -> None:
        if isinstance(value, datetime | time):
            value = value.isoformat()
        if isinstance(value, str):
            self.milliseconds += _MILLISECONDS.search(value) is not None
            self.more += _MORE.search(value) is not None

    @property
    def is_reduced(self) -> bool:
        return self.milliseconds > 0 and not self.more


def natural_key_normaliser(model: type[Model], parts: Sequence[Part]) -> Callable[[Sequence[Any], bool], Key]:
    """Return what turns a natural key of ``model`` in a fixture, where XML has only text, into one of a record."""
    normalise: list[Normaliser | None] = []
    for part in parts:
        owner = model
        for name in part.path[:-1]:
            owner = related_model(get_field(owner, name))
        normalise.append(None if part.called else normaliser(get_field(owner, part.path[-1])))

    def key(values: Sequence[Any], is_text: bool) -> Key:
        if any(part.called for part in parts):
            return list(values)
        if len(values) != len(parts):
            raise ValueError(f"a natural key of {model._meta.label_lower} has {len(parts)} parts, not {len(values)}")
        return [
            one(value, is_text) if one is not None and value is not None else value
            for one, value in zip(normalise, values, strict=True)
        ]

    return key


def content_type_places(model: type[Model], parts: Sequence[Part]) -> list[tuple[int, int]]:
    """Find the places in a natural key that name a model: indexes of its app label and its name."""
    places = []
    for index, part in enumerate(parts):
        owner = model
        for name in part.path[:-1]:
            owner = related_model(get_field(owner, name))
        if owner is ContentType and part.path[-1] == "app_label":
            beside = Part((*part.path[:-1], "model"))
            if beside in parts:
                places.append((index, list(parts).index(beside)))
    return places


def default_of(field: AnyField) -> tuple[bool, Any]:
    """Return whether a field has a default that is the same each time, and that default as a record holds it."""
    if field.default is not NOT_PROVIDED:
        values = [field.get_default(), field.get_default()]
    elif field.db_default is not NOT_PROVIDED and not hasattr(field.db_default, "resolve_expression"):
        values = [field.db_default, field.db_default]
    else:
        return field.null, None
    if isinstance(values[0], Model) or values[0] is None:
        return values[0] is None and field.null, None
    first, second = (normaliser(field)(value, False) for value in values)
    return first == second, first
