"""Lines that a database writes itself: what ``records`` asks for, and what an engine gives.

A line is a JSON object in the making. Texts in it are as they are, so that characters that no sound line has stand
for its structure: only whoever knows where they belong can tell them from those that a text might have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeAlias

QUOTE = "\x01"
"""A quotation mark of the line; one of a text is a plain one. With ``ABSENT``, all of a table's have equally many."""
ABSENT = "\x05"
"""Stands before what is written for null, as many times as there would be quotation marks otherwise."""
END = "\x02"
"""Stands between lines."""
ODD = "\x03"
"""Stands for a value that the database cannot write as its kind is written."""
JSON = "\x04"
"""Before and behind JSON, which is written anew."""


class Kind(Enum):
    """What a column holds, as far as a database can write it as JSON."""

    INTEGER = auto()
    BOOLEAN = auto()
    TEXT = auto()
    DATE = auto()
    MOMENT = auto()
    """Date and time in UTC."""
    UUID = auto()
    JSON = auto()


@dataclass(frozen=True)
class Value:
    """A column's value; its quotation marks are not part of it where it cannot be ``null``.

    ``sql`` is the column as it stands in the statement.
    """

    kind: Kind
    sql: str
    null: bool

    @property
    def is_quoted(self) -> bool:
        return self.kind in (Kind.TEXT, Kind.DATE, Kind.MOMENT, Kind.UUID)


@dataclass(frozen=True)
class Choice:
    """``pieces`` where the column ``sql`` is not null, ``absent`` where it is.

    ``there`` is a column that is null where the row that ``pieces`` are about does not exist, which is odd.
    """

    sql: str
    there: str
    absent: str
    pieces: Sequence[Value | str]


Piece: TypeAlias = "str | Value | Choice"
"""A part of a line: itself, a value, or one of two."""


@dataclass(frozen=True)
class Lines:
    """A query for the lines of a table, in the order of its integer primary key ``key``; ``source`` is its FROM."""

    pieces: Sequence[Piece]
    key: str
    source: str

    def values(self) -> Sequence[tuple[Value, str]]:
        """Return every value, with the column that has to be other than null for it to matter, or ""."""
        found = []
        for piece in self.pieces:
            if isinstance(piece, Value):
                found.append((piece, ""))
            elif isinstance(piece, Choice):
                found += [(value, piece.sql) for value in piece.pieces if isinstance(value, Value)]
        return found


@dataclass(frozen=True)
class LinePage:
    """Some lines, with ``END`` between them.

    Where they are ``escaped``, backslashes and what they escape are as in JSON.
    """

    text: bytes
    rows: int
    escaped: bool = False
