"""The short way of each field type says the same as Django's field contract, in the same bytes, and back again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from django.apps.registry import Apps
from django.db import connections, models
from django.db.models import fields
from django.db.models.fields.proxy import OrderWrt
from django.utils.encoding import is_protected_type
from hypothesis import given
from hypothesis import strategies as st

from backups.records import jsontext, values
from tests.engines import ENGINES
from tests.systems import Engine, connected

BIG = 2**63
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.datetimes(timezones=st.just(UTC) | OFFSETS).filter(lambda moment: 1 < moment.year < 9999)
INTEGERS = st.integers(-BIG, BIG - 1)
KEYS = INTEGERS.filter(bool)  # MySQL takes 0 for a key that it is to make up

VALUES: dict[type[fields.Field[Any, Any]], st.SearchStrategy[Any]] = {
    fields.AutoField: KEYS,
    fields.BigAutoField: KEYS,
    fields.BigIntegerField: INTEGERS,
    fields.BinaryField: st.binary() | st.binary().map(memoryview),
    fields.BooleanField: st.booleans(),
    fields.CharField: TEXT,
    fields.DateField: st.dates(),
    fields.DateTimeField: MOMENTS,
    fields.DecimalField: st.decimals(
        allow_nan=False, allow_infinity=False, places=6, min_value=-(10**12), max_value=10**12
    ),
    fields.DurationField: st.timedeltas(),
    fields.EmailField: TEXT,
    fields.FilePathField: TEXT,
    fields.FloatField: st.floats(),
    fields.GenericIPAddressField: st.ip_addresses().map(str),
    fields.IntegerField: INTEGERS,
    fields.PositiveBigIntegerField: st.integers(0, BIG - 1),
    fields.PositiveIntegerField: st.integers(0, BIG - 1),
    fields.PositiveSmallIntegerField: st.integers(0, BIG - 1),
    fields.SlugField: TEXT,
    fields.SmallAutoField: KEYS,
    fields.SmallIntegerField: INTEGERS,
    fields.TextField: TEXT,
    fields.TimeField: st.times().map(lambda time: time.replace(fold=0)),
    fields.URLField: TEXT,
    fields.UUIDField: st.uuids(),
    models.FileField: TEXT,
    models.ImageField: TEXT,
}
"""What a database's converters return for each type of column."""
OPTIONS: dict[Any, dict[str, Any]] = {fields.DecimalField: {"max_digits": 18, "decimal_places": 6}}
NO_COLUMN_OF_THEIR_OWN = {
    fields.Field,
    fields.CommaSeparatedIntegerField,
    fields.IPAddressField,
    fields.NullBooleanField,
    models.CompositePrimaryKey,
    models.GeneratedField,
    models.ForeignObject,
    models.ForeignKey,
    models.OneToOneField,
    models.ManyToManyField,
    models.JSONField,
    OrderWrt,
}
"""Abstract, removed, or with the values of another field; and JSON, which has tests of its own."""


def holder(kind: type[fields.Field[Any, Any]]) -> type[models.Model]:
    class Meta:
        apps = Apps()
        app_label = "values"

    key = {"primary_key": True} if issubclass(kind, fields.AutoFieldMixin) else {}
    column = kind(**OPTIONS.get(kind, {}), **key)
    return type("Holder", (models.Model,), {"__module__": __name__, "Meta": Meta, "column": column})


FIELDS = {kind: holder(kind)._meta.get_field("column") for kind in VALUES}


def contract(field: Any, value: Any) -> Any:
    """Return what Django's serialisers take from a row, before any encoder."""
    row = field.model(column=value)
    own = field.value_from_object(row)
    return own if is_protected_type(own) else field.value_to_string(row)


def encoded(field: Any, value: Any) -> Any:
    encode = values.encoder(field)
    return encode(value) if encode else value


def same(one: Any, other: Any) -> bool:
    """Return whether two values are equal, NaN to itself, and of one type."""
    return type(one) is type(other) and repr(one) == repr(other)


@pytest.fixture(scope="module", params=ENGINES)
def connection(request: pytest.FixtureRequest, engines: Callable[[str], Engine]) -> Iterator[Any]:
    with connected(engines(request.param).empty()):
        yield connections["default"]


def test_every_field_type_is_among_them() -> None:
    found = {one for one in vars(models).values() if isinstance(one, type) and issubclass(one, models.Field)}
    assert found - NO_COLUMN_OF_THEIR_OWN == FIELDS.keys()


@pytest.mark.parametrize("kind", FIELDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_the_short_way_writes_the_bytes_of_the_contract(kind: Any, data: st.DataObject) -> None:
    field = FIELDS[kind]
    value = data.draw(VALUES[kind])
    written = jsontext.dumps(encoded(field, value))
    assert written == jsontext.dumps(values._contract_encoder(field)(value))
    if isinstance(own := contract(field, value), str):
        assert jsontext.loads(written) == own


@pytest.mark.parametrize("kind", FIELDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_what_is_read_back_is_what_the_contract_says(kind: Any, data: st.DataObject) -> None:
    field = FIELDS[kind]
    value = data.draw(VALUES[kind])
    read = field.to_python(jsontext.loads(jsontext.dumps(encoded(field, value))))
    expected = field.to_python(contract(field, value))
    if kind is fields.DateTimeField:
        assert read == expected
    elif kind is fields.BinaryField:
        assert bytes(read) == bytes(expected) == bytes(value)
    else:
        assert same(read, expected)


@pytest.mark.parametrize("kind", FIELDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_the_parameter_is_that_of_the_contract(connection: Any, kind: Any, data: st.DataObject) -> None:
    field = FIELDS[kind]
    value = data.draw(VALUES[kind])
    parameter = values.decoder(field, connection)(jsontext.loads(jsontext.dumps(encoded(field, value))))
    expected = field.get_db_prep_save(field.to_python(contract(field, value)), connection=connection)
    if isinstance(expected, memoryview) or kind is fields.BinaryField:
        assert _bytes(parameter) == _bytes(expected)
    elif connection.vendor == "postgresql" and isinstance(parameter, int | datetime):
        assert parameter == expected  # Django wraps integers so that a statement knows their width; COPY knows it
    else:
        assert same(parameter, expected)


def _bytes(value: Any) -> bytes:
    return bytes(getattr(value, "obj", value))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=10,
)


@given(value=JSON)
def test_json_is_kept_as_the_contract_reads_it(value: Any) -> None:
    text = json.dumps(value)
    encoded = values._encode_json(text)
    read = encoded if encoded is values.JSON_NULL else jsontext.loads(jsontext.dumps(encoded))
    stored = values._decode_json(read)
    assert same(json.loads(stored), json.loads(text))


@pytest.mark.parametrize("text", ["1e999999999", "-1E+999999999", "0e4001001001001001001001", "1e99999999999999999999"])
def test_a_number_without_end_stays_as_it_is_written(text: str) -> None:
    """As an integer it would fill the memory."""
    assert jsontext.dumps(jsontext.canonical(jsontext.loads(text))).decode() == text
