"""Lines of a package made into rows of query parameters, many at a time, by a function written out for their table.

Knows no Django, so that another process can do it: see ``backups.pipeline``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import cached_property
from itertools import chain
from operator import lt
from typing import Any

import orjson

from backups.databases.text import NoText, text_of
from backups.records.compiled import function

Row = Sequence[Any]

PARSED_ROWS = 500
"""Lines that are parsed at once: what is made of them fits into a processor's cache."""


@dataclass(frozen=True, kw_only=True)
class Lines:
    """Some lines of a table. Primary keys that a database makes up have to ascend from ``after`` on."""

    lines: Sequence[bytes]
    after: Any


@dataclass(frozen=True, kw_only=True)
class Parser:
    """Makes parameters of the lines of one table, or text of them where ``is_text``: see ``backups.databases.text``.

    ``body`` are the lines of code that append to ``rows`` what they make of ``whole``, and raise one of ``REFUSALS``
    for what wants a closer look; ``scope`` has what they name.
    """

    label: str
    body: Sequence[str]
    scope: Mapping[str, Any] = field(repr=False)
    has_automatic_key: bool
    is_text: bool

    def __call__(self, page: Lines) -> list[Row] | bytes | None:
        """Return what a database takes for the lines, or None where one of them wants a closer look."""
        try:
            if self.is_text:
                return b"".join(map(text_of, self._parsed(page)))
            return list(chain.from_iterable(self._parsed(page)))
        except NoText:
            return replace(self, is_text=False)(page)
        except REFUSALS:
            return None

    def _parsed(self, page: Lines) -> Iterator[list[Row]]:
        after = page.after
        for start in range(0, len(page.lines), PARSED_ROWS):
            lines = page.lines[start : start + PARSED_ROWS]
            # A blank after the colon says that a line has numbers which orjson would round: see parse().
            if not all(line.startswith(b'{"model":"') for line in lines):
                refused()
            rows = self._rows(orjson.loads(b"[%b]" % b",".join(lines)))
            if len(rows) != len(lines):
                refused()
            if self.has_automatic_key:
                keys = [row[0] for row in rows]
                if (after is not None and keys[0] <= after) or not all(map(lt, keys, keys[1:])):
                    refused()
                after = keys[-1]
            yield rows

    @cached_property
    def _rows(self) -> Callable[[Sequence[Any]], list[Row]]:
        body = ["rows = []", "for whole in wholes:", *(f"    {line}" for line in self.body), "return rows"]
        return function(f"rows of {self.label}", "wholes", body, {**self.scope, "refused": refused, "nothing": {}})

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_rows"}


REFUSALS = (ValueError, TypeError, ArithmeticError, LookupError, RecursionError)


def refused() -> None:
    """Raise ``ValueError``: an expression can call this."""
    raise ValueError("not a line that needs no closer look")


def day(text: str) -> str:
    """Take a date as it is, which every engine does: no other form of ISO 8601."""
    date.fromisoformat(text)
    if len(text) != 10 or text[4] != "-" or text[7] != "-":
        refused()
    return text


def moment(text: str) -> str:
    """Take a moment in UTC as it is."""
    datetime.fromisoformat(text)
    is_plain = len(text) in (25, 32) and text[4] == text[7] == "-" and text[10] == "T" and text.endswith("+00:00")
    if not is_plain:
        refused()
    return text


def naive_moment(text: str) -> str:
    """Write a moment in UTC as Django does where columns have no time zone."""
    text = moment(text)
    return f"{text[:10]} {text[11:-6]}"
