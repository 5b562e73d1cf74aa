"""Pages of a table's lines, and how the cells that a database has written become the lines of a package.

They are handled column by column: a row that Python makes a record of costs five times as much.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, TypeAlias

import orjson

from backups.databases.cells import CELL, COPY_CELL, COPY_NULL, COPY_ROW, NULL, ROW, CellPage, Kind
from backups.records.digest import sum_of
from backups.records.jsontext import canonical_json, loads_many, plain_dumps_many

_ESCAPES = {b"\\": b"\\\\", b'"': b'\\"', b"\n": b"\\n", b"\r": b"\\r", b"\t": b"\\t", b"\b": b"\\b", b"\f": b"\\f"}
"""As orjson writes them; the backslash has to be the first."""
_BOOLEANS = {b"1": b"true", b"0": b"false"}
_COPY_BOOLEANS = {b"t": b"true", b"f": b"false"}
_SHAPES = bytes.maketrans(b"123456789", b"0" * 9)
_DATE, _MOMENT = b"0000-00-00", b"0000-00-00 00:00:00.000000"
"""What dates and moments look like when all digits are 0."""

_Column: TypeAlias = Sequence[bytes]
_Conversions: TypeAlias = Mapping[Kind, Callable[[_Column], _Column]]


@dataclass(frozen=True, slots=True)
class Page:
    """Some lines of one table, as they are in a package: each with its line feed.

    ``content`` is what they add to the digest of the table's content, 0 where nobody wants it.
    """

    block: bytes
    rows: int
    content: int = 0

    @property
    def lines(self) -> list[bytes]:
        """The lines, without their line feeds."""
        return self.block[:-1].split(b"\n")

    @classmethod
    def of(cls, lines: Sequence[bytes], contents: Iterable[bytes] = ()) -> Page:
        """Join lines. ``contents`` is what the rows say: see ``Table.content``."""
        return cls(b"\n".join([*lines, b""]), len(lines), sum_of(contents))


@dataclass(frozen=True)
class Maybe:
    """``parts`` where the column ``when`` is not null, ``absent`` where it is."""

    when: int
    parts: Sequence[str | int]
    absent: str


Part: TypeAlias = "str | int | Maybe"
"""A part of a line: itself, the number of a column, or one of two."""


class Odd(Exception):
    """A row that the database cannot write as it is in a package."""


@dataclass(frozen=True, kw_only=True)
class LineForm:
    """How the lines of one table are made of cells of these ``kinds``.

    ``fields`` is what the row says, with its braces; ``refs`` are the primary keys of its references, which are left
    out where there are none: then each of them begins with a comma, and ``refs_may_be_absent``.
    """

    label: str
    kinds: Sequence[Kind]
    pk: int
    fields: Sequence[Part]
    refs: Sequence[Part]
    refs_may_be_absent: bool


@dataclass(frozen=True)
class Finisher:
    """Makes the lines of one table of the cells that a database has written."""

    form: LineForm
    is_digested: bool

    def __call__(self, page: CellPage) -> Page | None:
        """Make the lines of a page, or return None where it has a row that the database cannot write."""
        try:
            return self._lines(_Columns.of(page, self.form.kinds))
        except (Odd, ValueError, TypeError):  # what is no UTF-8, or JSON in a form that is not known here
            return None

    def _lines(self, columns: _Columns) -> Page:
        form = self.form
        fields = columns.filled(form.fields)
        line: list[Part] = [f'{{"model":"{form.label}","pk":', form.pk, ',"fields":', len(columns.cells)]
        columns.add(fields)
        if form.refs_may_be_absent:
            line.append(len(columns.cells))
            columns.add([b',"refs":{%b}' % refs[1:] if refs else b"" for refs in columns.filled(form.refs)])
        elif form.refs:
            line += [',"refs":{', *form.refs, "}"]
        block = b"\n".join([*columns.filled([*line, "}"]), b""])
        contents: _Column = ()
        if self.is_digested:
            contents = columns.in_order().filled(form.fields) if columns.is_out_of_order else fields
        return Page(block, columns.rows, sum_of(contents))


class _Columns:
    """The cells of a page, column by column, as JSON has them. Null is written as the page has it."""

    def __init__(self, rows: int, null: bytes) -> None:
        self.rows = rows
        self.cells: list[_Column] = []
        self._null = null
        self._nulls: list[int] = []
        self._ordered: dict[int, _Column] = {}

    @classmethod
    def of(cls, page: CellPage, kinds: Sequence[Kind]) -> _Columns:
        """Take the cells of a page apart. Raises ``Odd`` or ``ValueError`` for what cannot be a line as it is."""
        text, cell, row, null = _text_of(page)
        cells = text.replace(row, cell).split(cell)
        if len(cells) != len(kinds) * page.rows:
            raise Odd
        columns, has_nulls = cls(page.rows, null), null in text
        conversions = _COPY_CONVERSIONS if page.escaped else _CONVERSIONS
        for number, kind in enumerate(kinds):
            column = cells[number :: len(kinds)]
            columns.add(column, column.count(null) if has_nulls else 0)
            columns._convert(number, kind, conversions)
        if not page.escaped and sum(columns._nulls) != text.count(null):
            raise Odd  # it is part of a text
        return columns

    @property
    def is_out_of_order(self) -> bool:
        """Whether what a row says is not as its line has it, because the keys of JSON objects are in another order."""
        return bool(self._ordered)

    def in_order(self) -> _Columns:
        """Return the same cells, with the keys of JSON objects in order."""
        other = _Columns(self.rows, self._null)
        other.cells = [self._ordered.get(number, column) for number, column in enumerate(self.cells)]
        other._nulls = self._nulls
        return other

    def add(self, column: _Column, nulls: int = 0) -> None:
        self.cells.append(column)
        self._nulls.append(nulls)

    def filled(self, parts: Sequence[Part]) -> list[bytes]:
        """Write these parts of all lines. Raises ``Odd`` where one is null that must not be."""
        template, columns = b"", list[_Column]()
        for part in parts:
            if isinstance(part, str):
                template += part.replace("%", "%%").encode()
            elif isinstance(part, int):
                if self._nulls[part]:
                    raise Odd
                template += b"%b"
                columns.append(self.cells[part])
            elif not self._nulls[part.when]:
                inner, some = self._within(part)
                template += inner
                columns += some
            elif self._nulls[part.when] == self.rows:
                template += part.absent.encode()
            else:
                template += b"%b"
                columns.append(self._chosen(part))
        return list(map(template.__mod__, zip(*columns, strict=True))) if columns else [template % ()] * self.rows

    def _within(self, maybe: Maybe) -> tuple[bytes, list[_Column]]:
        template, columns = b"", []
        for part in maybe.parts:
            if isinstance(part, str):
                template += part.replace("%", "%%").encode()
                continue
            if self._nulls[part] != self._nulls[maybe.when]:
                raise Odd  # a reference to a row that is not there
            template += b"%b"
            columns.append(self.cells[part])
        return template, columns

    def _chosen(self, maybe: Maybe) -> _Column:
        template, columns = self._within(maybe)
        null, absent = self._null, maybe.absent.encode()
        return [
            absent if when == null else template % parts
            for when, parts in zip(self.cells[maybe.when], zip(*columns, strict=True), strict=True)
        ]

    def _convert(self, number: int, kind: Kind, conversions: _Conversions) -> None:
        """Write the cells of a column, as a page has them, as JSON."""
        if self._nulls[number] == self.rows:
            return
        if kind is Kind.JSON:
            values = _json_values(self._there(number))
            written, ordered = plain_dumps_many(values), canonical_json(values)
            self.cells[number] = self._among_nulls(number, written)
            if ordered != written:
                self._ordered[number] = self._among_nulls(number, ordered)
        elif convert := conversions.get(kind):
            self.cells[number] = self._among_nulls(number, convert(self._there(number)))

    def _there(self, number: int) -> _Column:
        """Return the cells of a column that are not null."""
        column = self.cells[number]
        return [cell for cell in column if cell != self._null] if self._nulls[number] else column

    def _among_nulls(self, number: int, cells: _Column) -> _Column:
        if not self._nulls[number]:
            return cells
        there = iter(cells)
        return [self._null if cell == self._null else next(there) for cell in self.cells[number]]


def _text_of(page: CellPage) -> tuple[bytes, bytes, bytes, bytes]:
    """Return a page's text, in which texts are as JSON has them, and what stands between cells, rows, and for null."""
    text = page.text
    if not text.isascii():
        text.decode()  # a database may hold what is no UTF-8, and no package does
    if page.escaped:
        if b"\\v" in text and b"\\v" in text.replace(b"\\\\", b""):
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


def _integers(cells: _Column) -> _Column:
    """Refuse what other types than integers have, in columns of tables that Django has not made."""
    text = b"\n".join([b"", *cells, b""])
    if b"\n\n" in text or len(text.translate(None, b"-0123456789")) != len(cells) + 1:
        raise Odd
    # What begins so has to be looked at: 0 is an integer, and 00 is none.
    if (b"\n0" in text or b"-" in text) and any(cell != b"%d" % int(cell) for cell in cells):
        raise Odd
    return cells


def _booleans_in(words: Mapping[bytes, bytes]) -> Callable[[_Column], _Column]:
    def booleans(cells: _Column) -> _Column:
        if not words.keys() >= set(cells):
            raise Odd
        return [words[cell] for cell in cells]

    return booleans


def _dates(cells: _Column) -> _Column:
    if b"\n".join(cells).translate(_SHAPES) != b"\n".join([_DATE] * len(cells)):
        raise Odd  # before year 1 or after 9999, infinite, or none at all
    return cells


def _moments(cells: _Column) -> _Column:
    whole, most = len(_MOMENT) - 7, len(_MOMENT)
    text = b"\n".join([cell if len(cell) == most else _with_fraction(cell, whole, most) for cell in cells])
    if text.translate(_SHAPES) != b"\n".join([_MOMENT] * len(cells)):
        raise Odd
    return text.replace(b" ", b"T").replace(b".000000", b"").split(b"\n")


def _dates_of_text(cells: _Column) -> _Column:
    """Take what is text in the database, which may be the 30th of February. Raises ``ValueError`` then."""
    found = _dates(cells)
    deque(map(date.fromisoformat, b"\n".join(found).decode().split("\n")), maxlen=0)
    return found


def _moments_of_text(cells: _Column) -> _Column:
    found = _moments(cells)
    deque(map(datetime.fromisoformat, b"\n".join(found).decode().split("\n")), maxlen=0)
    return found


def _with_fraction(cell: bytes, whole: int, most: int) -> bytes:
    if len(cell) == whole:
        cell += b".0"
    return cell.ljust(most, b"0") if len(cell) > whole + 1 else cell


def _json_values(cells: _Column) -> list[Any]:
    texts = orjson.loads(b'["%b"]' % b'","'.join(cells))  # each is JSON in a text of JSON
    values = loads_many([text.encode() for text in texts])
    if None in values:
        raise Odd  # JSON has a null of its own, which is not SQL's
    return values


_CONVERSIONS: _Conversions = {
    Kind.INTEGER: _integers,
    Kind.BOOLEAN: _booleans_in(_BOOLEANS),
    Kind.DATE: _dates_of_text,
    Kind.MOMENT: _moments_of_text,
}
_COPY_CONVERSIONS: _Conversions = {
    Kind.INTEGER: _integers,
    Kind.BOOLEAN: _booleans_in(_COPY_BOOLEANS),
    Kind.DATE: _dates,
    Kind.MOMENT: _moments,
}
