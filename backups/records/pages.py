"""Pages of a table's lines, and how the cells that a database has written become the lines of a package."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from backups.databases.cells import CellPage, Kind
from backups.records.digest import sum_of
from backups.records.splitting import Cell, JsonColumn, Odd, split


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


@dataclass(frozen=True)
class Meant:
    """What ``known`` has for the cell of a column, null as well. That it has nothing is odd."""

    column: int
    known: Mapping[Cell, bytes]


Part: TypeAlias = "str | int | Maybe | Meant"
"""A part of a line: itself, the number of a column, one of two, or what a column means."""


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
            return self._lines(_Columns(page.rows, *split(page, self.form.kinds)))
        except (Odd, ValueError, TypeError):  # what is no UTF-8, or JSON in a form that is not known here
            return None

    def _lines(self, columns: _Columns) -> Page:
        form = self.form
        fields, contents = form.fields, list[bytes]()
        if self.is_digested:
            contents = columns.filled(form.fields)
            fields = [columns.add(contents)]  # which are not to be written twice
            if columns.is_out_of_order:
                contents = columns.in_order().filled(form.fields)
        line: list[Part] = [f'{{"model":"{form.label}","pk":', form.pk, ',"fields":', *fields]
        if form.refs_may_be_absent:
            refs = [b',"refs":{%b}' % found[1:] if found else b"" for found in columns.filled(form.refs)]
            line.append(columns.add(refs))
        elif form.refs:
            line += [',"refs":{', *form.refs, "}"]
        block = b"\n".join([*columns.filled([*line, "}"]), b""])
        return Page(block, columns.rows, sum_of(contents))


class _Columns:
    """The columns of a page, and what is made of them."""

    def __init__(self, rows: int, columns: list[JsonColumn], null: Cell) -> None:
        self.rows = rows
        self._columns = columns
        self._null = null

    @property
    def is_out_of_order(self) -> bool:
        """Whether what a row says is not as its line has it, because the keys of JSON objects are in another order."""
        return any(column.ordered is not None for column in self._columns)

    def in_order(self) -> _Columns:
        """Return the same cells, with the keys of JSON objects in order."""
        columns = [JsonColumn(column.ordered or column.cells, column.nulls) for column in self._columns]
        return _Columns(self.rows, columns, self._null)

    def add(self, cells: Sequence[Cell]) -> int:
        """Add a column, and return its number."""
        self._columns.append(JsonColumn(cells))
        return len(self._columns) - 1

    def filled(self, parts: Sequence[Part]) -> list[bytes]:
        """Write these parts of all lines. Raises ``Odd`` where one is null that must not be, or means nothing."""
        template, columns = b"", list[Sequence[bytes]]()
        for part in parts:
            if isinstance(part, str):
                template += part.replace("%", "%%").encode()
            elif isinstance(part, int):
                if self._columns[part].nulls:
                    raise Odd
                template += b"%b"
                columns.append(self._columns[part].cells)
            elif isinstance(part, Meant):
                template += b"%b"
                columns.append(self._meant(part))
            elif not self._columns[part.when].nulls:
                inner, some = self._within(part)
                template += inner
                columns += some
            elif self._columns[part.when].nulls == self.rows:
                template += part.absent.encode()
            else:
                template += b"%b"
                columns.append(self._chosen(part))
        return list(map(template.__mod__, zip(*columns, strict=True))) if columns else [template % ()] * self.rows

    def _meant(self, meant: Meant) -> list[bytes]:
        try:
            return list(map(meant.known.__getitem__, self._columns[meant.column].cells))
        except KeyError:
            raise Odd from None  # a reference to a row that is not there

    def _within(self, maybe: Maybe) -> tuple[bytes, list[Sequence[Cell]]]:
        template, columns = b"", []
        for part in maybe.parts:
            if isinstance(part, str):
                template += part.replace("%", "%%").encode()
                continue
            if self._columns[part].nulls != self._columns[maybe.when].nulls:
                raise Odd  # a reference to a row that is not there
            template += b"%b"
            columns.append(self._columns[part].cells)
        return template, columns

    def _chosen(self, maybe: Maybe) -> Sequence[bytes]:
        template, columns = self._within(maybe)
        null, absent = self._null, maybe.absent.encode()
        return [
            absent if when == null else template % parts
            for when, parts in zip(self._columns[maybe.when].cells, zip(*columns, strict=True), strict=True)
        ]
