"""One column's value, between the database, Python and JSON.

Django's field contract defines the meaning: ``value_to_string`` on the way out, ``to_python`` and
``get_db_prep_save`` on the way in. A stock field whose database value already is what JSON holds needs neither, and
takes the short way.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any, cast

from django.conf import settings
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import JSONField, Model, fields
from django.db.models.base import ModelState
from django.utils.encoding import is_protected_type

from backups.records.jsontext import NonFinite, for_json_column, for_jsonb_column, loads
from backups.records.relations import AnyField, final_field

JSON_NULL = object()
"""JSON null in a JSON column, apart from None, which is SQL NULL."""

Encoder = Callable[[Any], Any]
"""From what the database converters return, None excepted, to what JSON holds."""
Decoder = Callable[[Any], Any]
"""From what JSON holds, None excepted, to a query parameter."""

_PLAIN = {
    fields.AutoField,
    fields.BigAutoField,
    fields.BigIntegerField,
    fields.BooleanField,
    fields.CharField,
    fields.EmailField,
    fields.files.FileField,
    fields.IntegerField,
    fields.PositiveBigIntegerField,
    fields.PositiveIntegerField,
    fields.PositiveSmallIntegerField,
    fields.SlugField,
    fields.SmallAutoField,
    fields.SmallIntegerField,
    fields.TextField,
    fields.URLField,
}


def encoder(field: AnyField) -> Encoder | None:
    """Return the encoder of a column, or None where the value already is what JSON holds."""
    field = final_field(field)
    kind = type(field)
    if kind in _PLAIN:
        return None
    if isinstance(field, JSONField):
        return _encode_json if is_json_column(field) else _json_contract_encoder(field)
    return _STOCK_ENCODERS.get(kind) or _contract_encoder(field)


def is_json_column(field: AnyField) -> bool:
    """Tell whether a column is that of Django's JSON field; a subclass may keep JSON in one of text, or encrypted."""
    return (
        isinstance(field, JSONField)
        and field.get_internal_type() == "JSONField"
        and type(field).db_type is JSONField.db_type
    )


def plain_type(field: AnyField) -> type | None:
    """Return the type of which every value is its own query parameter, or None where there is no such type."""
    return _PLAIN_TYPES.get(type(final_field(field)))


def decoder(field: AnyField, connection: BaseDatabaseWrapper) -> Decoder:
    """Return the decoder of a column for one database. It raises ``ValueError`` for a value that does not fit."""
    field = final_field(field)
    if is_json_column(field):
        return _decode_jsonb if connection.vendor == "postgresql" else _decode_json
    plain = plain_type(field)

    def decode(value: Any) -> Any:
        return field.get_db_prep_save(field.to_python(value), connection=connection)

    def decode_json(value: Any) -> Any:
        held = json.loads(for_json_column(value), cls=cast("JSONField", field).decoder)
        return field.get_db_prep_save(held, connection=connection)

    def decode_plain(value: Any) -> Any:
        # What a stock field's column holds, every driver takes: a fifth of a restore's time would go into asking.
        return value if type(value) is plain else decode(value)

    def decode_moment(value: Any) -> Any:
        moment = datetime.fromisoformat(value)
        if settings.USE_TZ and moment.tzinfo is None:
            return decode(value)
        return connection.ops.adapt_datetimefield_value(moment)

    def decode_numeric(value: Any) -> Any:
        # PostgreSQL's numeric has them; Django reads them and refuses to write them.
        return Decimal(value) if value in ("NaN", "Infinity", "-Infinity") else decode(value)

    if plain is not None:
        return decode_plain
    if isinstance(field, JSONField):
        return decode_json
    if isinstance(field, fields.DecimalField) and connection.vendor == "postgresql":
        return decode_numeric
    return decode_moment if type(field) is fields.DateTimeField else decode


def _encode_json(text: str) -> Any:
    """Encode a JSON column, which is read as text because ``from_db_value`` gives None for two different nulls."""
    value = loads(text)
    return JSON_NULL if value is None else value


def _decode_json(value: Any) -> str:
    return "null" if value is JSON_NULL else for_json_column(value)


def _decode_jsonb(value: Any) -> str:
    return "null" if value is JSON_NULL else for_jsonb_column(value)


def _encode_datetime(value: datetime) -> Any:
    return value.astimezone(UTC) if value.tzinfo not in (None, UTC) else value


def _encode_iso(value: date | time) -> str:
    return value.isoformat()


def _encode_float(value: float) -> float:
    return value if math.isfinite(value) else NonFinite(value)


def _encode_binary(value: Any) -> str:
    return base64.b64encode(value).decode("ascii")


_STOCK_ENCODERS: dict[Any, Encoder | None] = {
    fields.BinaryField: _encode_binary,
    fields.DateField: _encode_iso,
    fields.DateTimeField: _encode_datetime,
    fields.DecimalField: str,
    fields.FloatField: _encode_float,
    fields.TimeField: _encode_iso,
    fields.UUIDField: str,
}
_PLAIN_TYPES: dict[Any, type] = {
    kind: bool if kind is fields.BooleanField else int if issubclass(kind, fields.IntegerField) else str
    for kind in _PLAIN
}


def _contract_encoder(field: AnyField) -> Encoder:
    """Call the field's own ``value_to_string`` on a bare instance, as Django's serialisers do on a whole one."""
    model: type[Model] = field.model
    instance = model.__new__(model)
    instance._state = ModelState()

    def encode(value: Any) -> Any:
        instance.__dict__[field.attname] = value
        own = field.value_from_object(instance)
        if not is_protected_type(own):
            own = field.value_to_string(instance)
        return _encode_protected(own)

    return encode


def _json_contract_encoder(field: JSONField) -> Encoder:
    return lambda value: loads(json.dumps(value, cls=field.encoder))


def _encode_protected(value: Any) -> Any:
    if isinstance(value, float):
        return _encode_float(value)
    if isinstance(value, datetime):
        return _encode_datetime(value)
    if value is None or isinstance(value, str | int):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
