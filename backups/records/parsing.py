"""Lines of a package made into rows of query parameters, many at a time, by a function written out for their table.

Knows no Django, so that another process can do it: see ``backups.pipeline``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import cached_property
from itertools import chain
from typing import Any

import orjson

from backups.databases.text import NULL, NoText, text_of
from backups.records.compiled import function

Row = Sequence[Any]
_Make = Callable[[Sequence[Any], Any], tuple[list[Any], Any]]

PARSED_BYTES = 32 * 1024
"""Lines that are parsed at once: what is made of them fits into a processor's cache."""
_START = b'{"model":"'
"""A blank after the colon says that a line has numbers which orjson would round: see ``parse``."""


@dataclass(frozen=True, kw_only=True)
class Lines:
    """Some lines of a table, each with its line feed: one text is passed on in less time than many.

    Primary keys that a database makes up have to ascend from ``after`` on.
    """

    block: bytes
    after: Any

    @property
    def lines(self) -> list[bytes]:
        """The lines, without their line feeds."""
        return self.block[:-1].split(b"\n")

    def pieces(self) -> Iterator[bytes]:
        """Yield some whole lines at a time, without the last one's line feed."""
        start = 0
        while start < len(self.block):
            end = self.block.rfind(b"\n", start, start + PARSED_BYTES)
            if end < 0:  # one line is longer
                end = self.block.index(b"\n", start)
            yield self.block[start:end]
            start = end + 1

    @property
    def last(self) -> bytes:
        """The last line."""
        return self.block[self.block.rfind(b"\n", 0, -1) + 1 : -1]


@dataclass(frozen=True)
class Parsed:
    """What a database takes for so many lines: rows of parameters, or text."""

    rows: Sequence[Row] | bytes
    count: int


@dataclass(frozen=True, kw_only=True)
class Parser:
    """Makes parameters of the lines of one table, or text of them where ``is_text``: see ``backups.databases.text``.

    ``body`` are the lines of code that make ``values`` of ``whole``, and raise one of ``REFUSALS`` for what wants a
    closer look; ``scope`` has what they name. ``texts`` are the expressions of the same values as text, where no line
    has a backslash; None where that is not known.
    """

    label: str
    body: Sequence[str]
    values: Sequence[str]
    texts: Sequence[str] | None
    scope: Mapping[str, Any] = field(repr=False)
    is_text: bool

    def __call__(self, page: Lines) -> Parsed | None:
        """Return what a database takes for the lines, or None where one of them wants a closer look."""
        try:
            made = list(self._made(page))
            rows = b"".join(made) if self.is_text else list(chain.from_iterable(made))
            return Parsed(rows, page.block.count(b"\n"))
        except NoText:
            return replace(self, is_text=False)(page)
        except REFUSALS:
            return None

    def _made(self, page: Lines) -> Iterator[Any]:
        """Yield rows, or text of them, of some lines at a time."""
        after = page.after
        for lines in page.pieces():
            count = lines.count(b"\n") + 1
            if not lines.startswith(_START) or lines.count(b"\n" + _START) + 1 != count:
                refused()
            whole = b"[%b]" % lines.replace(b"\n", b",")
            # What text has otherwise than JSON, JSON writes with a backslash. To write value by value, and then look
            # for that in the text, takes as long as to parse the lines.
            is_plain = self.is_text and self.texts is not None and b"\\" not in whole
            make = self._line if is_plain else self._row
            rows, after = make(orjson.loads(whole), after)
            if len(rows) != count:
                refused()
            if is_plain:
                yield "".join(rows).encode()
            else:
                yield text_of(rows) if self.is_text else rows

    @cached_property
    def _row(self) -> _Make:
        return self._function(f"({', '.join(self.values)},)")

    @cached_property
    def _line(self) -> _Make:
        cells = "\\t".join(f"{{{text}}}" for text in self.texts or ())
        return self._function(f"f'{cells}\\n'")

    def _function(self, made: str) -> _Make:
        loop = [f"    {line}" for line in (*self.body, f"rows.append({made})")]
        body = ["rows = []", "for whole in wholes:", *loop, "return rows, after"]
        scope = {**self.scope, "refused": refused, "escaped": escaped, "nothing": {}, "null": NULL}
        return function(f"rows of {self.label}", "wholes, after", body, scope)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_row", "_line")}


REFUSALS = (ValueError, TypeError, ArithmeticError, LookupError, RecursionError)


def refused() -> None:
    """Raise ``ValueError``: an expression can call this."""
    raise ValueError("not a line that needs no closer look")


def escaped(json: str) -> str:
    """Write JSON, in which every other character that wants one has a backslash, as part of a text."""
    return json.replace("\\", r"\\")


def day(text: str) -> str:
    """Take a date as it is, which every engine does: no other form of ISO 8601."""
    date.fromisoformat(text)
    if len(text) != 10 or text[4] != "-" or text[7] != "-":
        refused()
    return text


def moment(text: str) -> str:
    """Take a moment in UTC as it is."""
    datetime.fromisoformat(text)
    is_plain = text[4] == text[7] == "-" and text[10] == "T" and text[13] == ":" and text.endswith("+00:00")
    if not is_plain or not (len(text) == 25 or (len(text) == 32 and text[19] == ".")):
        refused()
    return text


def naive_moment(text: str) -> str:
    """Write a moment in UTC as Django does where columns have no time zone."""
    text = moment(text)
    return f"{text[:10]} {text[11:-6]}"
