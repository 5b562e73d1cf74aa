"""How pages of cells, as databases write them, are taken apart into columns that are as JSON has them.

Column by column: a row that Python makes a record of costs five times as much.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, TypeAlias

import orjson

from backups.databases.cells import (
    CELL,
    COPY_CELL,
    COPY_NULL,
    COPY_ROW,
    NULL,
    NUMBERS,
    ROW,
    ArrayPage,
    CellPage,
    Kind,
    TextPage,
)
from backups.records.jsontext import canonical_json, loads_many, plain_dumps_many

_ROW, _NULL = ROW.encode(), NULL.encode()
ARRAY_NULL = b"\\u0005"
"""``NULL``, as JSON has it."""
NULLS = _NULL, COPY_NULL.encode(), ARRAY_NULL
"""What stands for null in the columns of one page or another."""

_ESCAPES = {b"\\": b"\\\\", b'"': b'\\"', b"\n": b"\\n", b"\r": b"\\r", b"\t": b"\\t", b"\b": b"\\b", b"\f": b"\\f"}
"""As orjson writes them; the backslash has to be the first."""
_BOOLEANS = {b"1": b"true", b"0": b"false"}
_COPY_BOOLEANS = {b"t": b"true", b"f": b"false"}
_SHAPES = bytes.maketrans(b"123456789", b"0" * 9)
_DATE, _MOMENT = b"0000-00-00", b"0000-00-00 00:00:00.000000"
"""What dates and moments look like when all digits are 0."""
_UUID_ENDS = 8, 12, 16, 20
_BETWEEN_ROWS = b"]%b[" % _ROW
_BETWEEN_TEXTS = {b",", _BETWEEN_ROWS}
_OF_INTEGERS = b"-0123456789,null" + _BETWEEN_ROWS
_BACKSLASH, _QUOTE = b"\x01", b"\x03"
"""What JSON never has as it is, in place of a backslash and a quotation mark within a text."""

Cell: TypeAlias = bytes
_Conversions: TypeAlias = Mapping[Kind, Callable[[Sequence[Cell]], Sequence[Cell]]]


class Odd(Exception):
    """A row that the database cannot write as it is in a package."""


@dataclass(frozen=True)
class JsonColumn:
    """Cells of a page as JSON has them, without the quotation marks of texts; ``nulls`` counts those that are null.

    ``ordered`` are the same with the keys of objects in order, where that makes them others.
    """

    cells: Sequence[Cell]
    nulls: int = 0
    ordered: Sequence[Cell] | None = None


def split(page: CellPage, kinds: Sequence[Kind]) -> tuple[list[JsonColumn], Cell]:
    """Return the columns of a page, and what stands for null in them.

    Raises ``Odd`` or ``ValueError`` for what cannot be a line as it is.
    """
    if isinstance(page, ArrayPage):
        return _of_arrays(page, kinds), ARRAY_NULL
    return _of_text(page, kinds)


# Text with marks


def _of_text(page: TextPage, kinds: Sequence[Kind]) -> tuple[list[JsonColumn], Cell]:
    text, cell, row, null = _prepared(page)
    cells = text.replace(row, cell).split(cell)
    if len(cells) != len(kinds) * page.rows:
        raise Odd
    has_nulls = _has(text, null) if page.escaped else null in text
    conversions = _COPY_CONVERSIONS if page.escaped else _CONVERSIONS
    columns = []
    for number, kind in enumerate(kinds):
        column = cells[number :: len(kinds)]
        nulls = column.count(null) if has_nulls else 0
        columns.append(_converted(column, nulls, null, kind, conversions))
    if not page.escaped and sum(column.nulls for column in columns) != text.count(null):
        raise Odd  # it is part of a text
    return columns, null


def _prepared(page: TextPage) -> tuple[bytes, bytes, bytes, bytes]:
    """Return a page's text, in which texts are as JSON has them, and what stands between cells, rows, and for null."""
    text = page.text
    _require_unicode(text)
    if page.escaped:
        if _has(text, b"\\v") and b"\\v" in text.replace(b"\\\\", b""):
            raise Odd  # a vertical tab, which JSON writes in another way
        text = text.replace(b'"', b'\\"')
        marks = COPY_CELL, COPY_ROW, COPY_NULL
    else:
        for character, escape in _ESCAPES.items():
            if character in text:
                text = text.replace(character, escape)
        marks = CELL, ROW, NULL
    if any(control in text for control in range(32) if chr(control) not in marks):
        raise Odd
    cell, row, null = map(str.encode, marks)
    return text, cell, row, null


def _has(text: bytes, escape: bytes) -> bool:
    """Whether a text has an escape, which begins with a backslash.

    To look for that alone takes less than a fiftieth of the time.
    """
    return b"\\" in text and escape in text


def _require_unicode(text: bytes) -> None:
    """Raise ``ValueError`` for what is no UTF-8: a database may hold that, and no package does."""
    if not text.isascii():
        text.decode()


# Arrays


def _of_arrays(page: ArrayPage, kinds: Sequence[Kind]) -> list[JsonColumn]:
    texts = _columns(page.texts, page.rows, _texts)
    numbers = _columns(page.numbers, page.rows, _numbers)
    documents = map(_documents, page.documents)
    columns = []
    for kind in kinds:
        cells, has_nulls = next(documents if kind is Kind.JSON else numbers if kind in NUMBERS else texts)
        if len(cells) != page.rows:
            raise Odd
        nulls = cells.count(ARRAY_NULL) if has_nulls else 0
        columns.append(_converted(cells, nulls, ARRAY_NULL, kind, _ARRAY_CONVERSIONS))
    return columns


def _columns(
    arrays: Iterable[bytes], rows: int, apart: Callable[[bytes], tuple[list[Cell], bool]]
) -> Iterator[tuple[list[Cell], bool]]:
    """Yield the cells of each column, and whether there may be nulls."""
    for array in arrays:
        cells, has_nulls = apart(array)
        width = len(cells) // rows
        for number in range(width):
            yield cells[number::width], has_nulls


def _texts(array: bytes) -> tuple[list[Cell], bool]:
    """Take arrays apart that have nothing but texts, whose cells stay as JSON has them. Raises ``Odd`` for any other.

    To split at single characters takes half the time of looking for what stands between texts.
    """
    _require_unicode(array)
    has_nulls, has_quotes = _has(array, ARRAY_NULL), _has(array, b'\\"')
    if has_quotes:
        array = array.replace(b"\\\\", _BACKSLASH).replace(b'\\"', _QUOTE)
    parts = array.split(b'"')
    if parts[0] != b"[" or parts[-1] != b"]" or not _BETWEEN_TEXTS.issuperset(parts[2:-1:2]):
        raise Odd
    cells = parts[1::2]
    if has_quotes:
        cells = b"\n".join(cells).replace(_QUOTE, b'\\"').replace(_BACKSLASH, b"\\\\").split(b"\n")
    return cells, has_nulls


def _numbers(array: bytes) -> tuple[list[Cell], bool]:
    """Take arrays apart that have nothing but integers and nulls. Raises ``Odd`` for any other."""
    if array.translate(None, _OF_INTEGERS):
        raise Odd
    if has_nulls := b"n" in array:
        array = array.replace(b"null", ARRAY_NULL)
    return array[1:-1].replace(_BETWEEN_ROWS, b",").split(b","), has_nulls


def _documents(texts: bytes) -> tuple[list[Cell], bool]:
    cells = texts.split(_ROW)
    if ARRAY_NULL in cells:
        raise Odd
    has_nulls = _NULL in cells
    return [ARRAY_NULL if cell == _NULL else cell for cell in cells] if has_nulls else cells, has_nulls


# Kinds


def _converted(cells: Sequence[Cell], nulls: int, null: Cell, kind: Kind, conversions: _Conversions) -> JsonColumn:
    """Write cells, as a page has them, as JSON."""
    convert = conversions.get(kind)
    if nulls == len(cells) or (convert is None and kind is not Kind.JSON):
        return JsonColumn(cells, nulls)
    found: Sequence[Cell] = [cell for cell in cells if cell != null] if nulls else cells
    if convert is not None:
        found = convert(found)
    ordered = None
    if kind is Kind.JSON:
        values = _values(found)
        found, in_order = plain_dumps_many(values), canonical_json(values)
        ordered = None if in_order == found else _among_nulls(in_order, cells, null, nulls)
    return JsonColumn(_among_nulls(found, cells, null, nulls), nulls, ordered)


def _among_nulls(found: Sequence[Cell], cells: Sequence[Cell], null: Cell, nulls: int) -> Sequence[Cell]:
    if not nulls:
        return found
    there = iter(found)
    return [null if cell == null else next(there) for cell in cells]


def _integers(cells: Sequence[Cell]) -> Sequence[Cell]:
    """Refuse what other types than integers have, in columns of tables that Django has not made."""
    text = b"\n".join([b"", *cells, b""])
    if b"\n\n" in text or len(text.translate(None, b"-0123456789")) != len(cells) + 1:
        raise Odd
    # What begins so has to be looked at: 0 is an integer, and 00 is none.
    if (b"\n0" in text or b"-" in text) and any(cell != b"%d" % int(cell) for cell in cells):
        raise Odd
    return cells


def _booleans_in(words: Mapping[Cell, Cell]) -> Callable[[Sequence[Cell]], Sequence[Cell]]:
    def booleans(cells: Sequence[Cell]) -> Sequence[Cell]:
        if not words.keys() >= set(cells):
            raise Odd
        return [words[cell] for cell in cells]

    return booleans


def _dates(cells: Sequence[Cell]) -> Sequence[Cell]:
    if b"\n".join(cells).translate(_SHAPES) != b"\n".join([_DATE] * len(cells)):
        raise Odd  # before year 1 or after 9999, infinite, or none at all
    return cells


def _moments(cells: Sequence[Cell]) -> Sequence[Cell]:
    shape = b"\n".join([_MOMENT] * len(cells))
    text = b"\n".join(cells)
    if len(text) != len(shape):
        whole = len(_MOMENT)
        text = b"\n".join([cell if len(cell) == whole else _with_fraction(cell) for cell in cells])
    if text.translate(_SHAPES) != shape:
        raise Odd
    return text.replace(b" ", b"T").replace(b".000000", b"").split(b"\n")


def _dates_of_text(cells: Sequence[Cell]) -> Sequence[Cell]:
    """Take what is text in the database, which may be the 30th of February. Raises ``ValueError`` then."""
    found = _dates(cells)
    deque(map(date.fromisoformat, b"\n".join(found).decode().split("\n")), maxlen=0)
    return found


def _moments_of_text(cells: Sequence[Cell]) -> Sequence[Cell]:
    found = _moments(cells)
    deque(map(datetime.fromisoformat, b"\n".join(found).decode().split("\n")), maxlen=0)
    return found


def _with_fraction(cell: Cell) -> Cell:
    whole, most = len(_MOMENT) - 7, len(_MOMENT)
    if len(cell) == whole:
        cell += b".0"
    return cell.ljust(most, b"0") if len(cell) > whole + 1 else cell


def _uuids(cells: Sequence[Cell]) -> Sequence[Cell]:
    """Write 32 hexadecimal digits as JSON has a UUID."""
    if any(len(cell) != 32 for cell in cells) or b"".join(cells).translate(None, b"0123456789abcdef"):
        raise Odd
    one, two, three, four = _UUID_ENDS
    return [b"-".join((cell[:one], cell[one:two], cell[two:three], cell[three:four], cell[four:])) for cell in cells]


def _unescaped(cells: Sequence[Cell]) -> Sequence[Cell]:
    texts: list[str] = orjson.loads(b'["%b"]' % b'","'.join(cells))  # each is JSON in a text of JSON
    return [text.encode() for text in texts]


def _values(documents: Sequence[bytes]) -> list[Any]:
    values = loads_many(documents)
    if None in values:
        raise Odd  # JSON has a null of its own, which is not SQL's
    return values


_CONVERSIONS: _Conversions = {
    Kind.INTEGER: _integers,
    Kind.BOOLEAN: _booleans_in(_BOOLEANS),
    Kind.DATE: _dates_of_text,
    Kind.MOMENT: _moments_of_text,
    Kind.JSON: _unescaped,
}
_ARRAY_CONVERSIONS: _Conversions = {
    Kind.BOOLEAN: _booleans_in(_BOOLEANS),
    Kind.DATE: _dates_of_text,
    Kind.MOMENT: _moments_of_text,
    Kind.UUID: _uuids,
}
_COPY_CONVERSIONS: _Conversions = {
    **_CONVERSIONS,
    Kind.BOOLEAN: _booleans_in(_COPY_BOOLEANS),
    Kind.DATE: _dates,
    Kind.MOMENT: _moments,
}
