"""What databases write as cells is taken apart into just those cells, or not at all."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from django.db import connection
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from backups import databases
from backups.databases.cells import Cells, Column, Kind
from backups.databases.sqlite import ARGUMENTS
from backups.records.splitting import ARRAY_NULL, Odd, split
from tests.systems import System

PIECES = ['"', '","', '",', ',"', "\\", '\\"', "],[", '"]\x02["', "null", "\\u0005", ",", "0", "a", "品", "[", "]"]
BYTES = b"text", b"1", b"\x17a", b"\x00", b"\x131"
"""The last three are JSON to SQLite from 3.45 on: https://www.sqlite.org/jsonb.html."""
CONTROLS = [chr(code) for code in range(32)]
KINDS = [Kind.INTEGER, Kind.TEXT, Kind.TEXT, Kind.INTEGER, Kind.JSON, Kind.BOOLEAN]
NAMES = [f"c{number}" for number in range(len(KINDS))]
NULLABLE = [False, True, False, True, True, False]
SOUND: list[Any] = [1, None, "text", None, None, 0]

texts = st.lists(st.sampled_from(PIECES + CONTROLS), max_size=6).map("".join)
integers = st.integers(-(2**63), 2**63 - 1)
documents = st.recursive(integers | texts, lambda inner: st.lists(inner) | st.dictionaries(texts, inner))
any_value = st.none() | texts | integers | st.floats(allow_nan=False) | st.binary(max_size=3)


def sound_rows() -> Any:
    sound = texts.filter(lambda text: text != "\x05")
    json = documents.map(lambda value: orjson.dumps(value).decode()).filter(lambda text: text != "null") | st.none()
    return st.tuples(integers, sound | st.none(), sound, integers | st.none(), json, st.sampled_from([0, 1]))


def pages_of(rows: list[tuple[Any, ...]]) -> list[Any]:
    """Return the pages that SQLite makes of rows in columns that take whatever they are given."""
    columns = [Column(kind, f"t0.{name}", null=null) for name, kind, null in zip(NAMES, KINDS, NULLABLE, strict=True)]
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS odd")
        cursor.execute(f"CREATE TABLE odd (id INTEGER PRIMARY KEY, {', '.join(NAMES)})")
        marks = ", ".join(["%s"] * len(KINDS))
        cursor.executemany(f"INSERT INTO odd ({', '.join(NAMES)}) VALUES ({marks})", rows)
    return list(databases.of("default").cells(Cells(columns, "t0.id", "odd t0"), None))


def values_of(page: Any) -> list[tuple[Any, ...]]:
    found, null = split(page, KINDS)
    assert null == ARRAY_NULL
    columns = []
    for column, kind in zip(found, KINDS, strict=True):
        quoted = b'"%b"' if kind is Kind.TEXT else b"%b"
        columns.append([None if cell == null else orjson.loads(quoted % cell) for cell in column.cells])
        assert column.nulls == columns[-1].count(None)
        if column.nulls and not NULLABLE[len(columns) - 1]:
            raise Odd
    return list(zip(*columns, strict=True))


def as_read(row: tuple[Any, ...]) -> tuple[Any, ...]:
    *plain, document, flag = row
    return (*plain, None if document is None else orjson.loads(document), bool(flag))


many_examples = hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@many_examples
@given(st.lists(sound_rows(), min_size=1, max_size=5))
def test_sound_rows_are_never_odd(lite: System, rows: list[tuple[Any, ...]]) -> None:
    pages = pages_of(rows)
    found = [row for page in pages for row in values_of(page)]
    assert found == list(map(as_read, rows))


@many_examples
@given(
    st.lists(sound_rows(), max_size=3),
    st.lists(st.tuples(st.integers(0, len(KINDS) - 1), any_value), min_size=1, max_size=2),
)
def test_what_is_not_of_its_columns_kind_is_odd_or_itself(
    lite: System, rows: list[tuple[Any, ...]], others: list[tuple[int, Any]]
) -> None:
    odd = [(*SOUND[:number], value, *SOUND[number + 1 :]) for number, value in others]
    pages = pages_of(rows + odd)
    found: list[tuple[Any, ...]] = []
    for page in pages:
        try:
            found += values_of(page)
        except (Odd, ValueError):
            return
    for row, written in zip(rows + odd, found, strict=True):
        assert not any(isinstance(value, bytes | float) for value in row)
        assert row[5] in (0, 1)
        assert (written, list(map(type, written))) == (as_read(row), list(map(type, as_read(row))))


@pytest.mark.parametrize(
    ("number", "value"),
    [
        *((number, value) for number in (0, 3) for value in ("1", "", "null", "1,2", 1.5, 1e300, *BYTES)),
        *((number, value) for number in (1, 2) for value in (5, 1.5, *BYTES)),
        *((number, "\x05") for number in (1, 2)),
        (2, None),
        *((4, value) for value in ("", "{", "\x05", "\\u0005", '"\x02"', "{}\x00", "null", *BYTES, b"{}", 1)),
        *((5, value) for value in (2, -1, "1", *BYTES)),
    ],
)
def test_each_of_these_is_odd_among_sound_rows(lite: System, number: int, value: Any) -> None:
    rows = [tuple(SOUND), (*SOUND[:number], value, *SOUND[number + 1 :]), tuple(SOUND)]
    (page,) = pages_of(rows)
    with pytest.raises((Odd, ValueError)):
        values_of(page)


def test_what_one_odd_cell_lacks_no_other_has_too_much(lite: System) -> None:
    rows = [(*SOUND[:4], document, 0) for document in (7, '"a"\x02"b"')]
    (page,) = pages_of(rows)
    with pytest.raises((Odd, ValueError)):
        values_of(page)


@pytest.mark.parametrize(
    "value", ["", "0" * 31, "0" * 33, "0" * 31 + "g", "0" * 31 + "A", f"{'0' * 8}-{'0' * 23}", 1, b"0"]
)
def test_what_is_no_uuid_is_odd(lite: System, value: Any) -> None:
    sound = "0123456789abcdef0123456789abcdef"
    columns = [Column(Kind.UUID, "t0.c0", null=True)]
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE odd (c0)")
        cursor.executemany("INSERT INTO odd VALUES (%s)", [[sound], [None]])
        cells = Cells(columns, "t0.rowid", "odd t0")
        (page,) = databases.of("default").cells(cells, None)
        (column,), null = split(page, [Kind.UUID])
        assert column.cells == [b"01234567-89ab-cdef-0123-456789abcdef", null]
        cursor.execute("INSERT INTO odd VALUES (%s)", [value])
        (page,) = databases.of("default").cells(cells, None)
        with pytest.raises(Odd):
            split(page, [Kind.UUID])


@pytest.mark.parametrize("width", [ARGUMENTS - 1, ARGUMENTS, ARGUMENTS + 1, 3 * ARGUMENTS])
def test_there_may_be_more_columns_than_an_array_has(lite: System, width: int) -> None:
    names = [f"c{number}" for number in range(width)]
    columns = [Column(Kind.TEXT, f"t0.{name}", null=True) for name in names]
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE wide ({', '.join(f'{name} text' for name in names)})")
        for row in range(3):
            values = [None if (number + row) % 7 == 0 else f'{number} "{row}"' for number in range(width)]
            cursor.execute(f"INSERT INTO wide VALUES ({', '.join(['%s'] * width)})", values)
    (page,) = databases.of("default").cells(Cells(columns, "t0.rowid", "wide t0"), None)
    found, null = split(page, [Kind.TEXT] * width)
    assert [column.cells for column in found] == [
        [null if (number + row) % 7 == 0 else rb"%d \"%d\"" % (number, row) for row in range(3)]
        for number in range(width)
    ]
