"""Rows as a database writes them, many at a time: what ``records`` asks for, and what an engine gives.

A row is cells of text, which are as the columns have them: what stands between them is JSON's to be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeAlias

CELL, ROW, NULL = "\x01", "\x02", "\x05"
"""What stands between cells, between rows, and alone in a cell for null. Hardly any text has such characters."""
COPY_CELL, COPY_ROW, COPY_NULL = "\t", "\n", "\\N"
"""The same of PostgreSQL's COPY: https://www.postgresql.org/docs/current/sql-copy.html."""
ODD = "\x03"
"""Stands in a page, or a row of it, that the database cannot write as the kinds of its columns are written."""


class Kind(Enum):
    """What a column holds, as far as databases write it alike."""

    INTEGER = auto()
    BOOLEAN = auto()
    """``t`` or ``1``, and ``f`` or ``0``."""
    TEXT = auto()
    DATE = auto()
    """``2026-01-31``."""
    MOMENT = auto()
    """``2026-01-31 23:59:59`` in UTC, with up to six digits of a fraction."""
    UUID = auto()
    """As JSON has it, with hyphens; in an ``ArrayPage`` without."""
    JSON = auto()


NUMBERS = Kind.INTEGER, Kind.BOOLEAN
"""What an ``ArrayPage`` has as numbers."""
NO_TEXTS = *NUMBERS, Kind.JSON
"""What stands in a line without quotation marks."""


@dataclass(frozen=True)
class Column:
    """A column as it stands in the statement; ``null`` where it may be."""

    kind: Kind
    sql: str
    null: bool


@dataclass(frozen=True)
class Cells:
    """A query for the cells of a table, in the order of its integer primary key ``key``; ``source`` is its FROM."""

    columns: Sequence[Column]
    key: str
    source: str


@dataclass(frozen=True)
class TextPage:
    """The cells of some rows.

    Where they are ``escaped``, it is COPY's characters that stand between them, and backslashes with what they escape
    are as in JSON.
    """

    text: bytes
    rows: int
    escaped: bool = False


@dataclass(frozen=True)
class ArrayPage:
    """The cells of some rows, by the kinds of their columns; between rows stands ``ROW``, which JSON has only escaped.

    ``texts`` and ``numbers`` are JSON: each is some columns, and of those an array for each row. ``documents`` are the
    JSON columns, one by one, as they are. For null stands ``NULL``, and among numbers JSON's own.
    """

    texts: Sequence[bytes]
    numbers: Sequence[bytes]
    documents: Sequence[bytes]
    rows: int


CellPage: TypeAlias = "TextPage | ArrayPage"
