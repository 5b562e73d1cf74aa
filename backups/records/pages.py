"""Pages of a table's lines, and how the lines that a database has written become those of a package.

They are handled in a few passes over all their bytes: a row that Python makes a line of costs five times as much.
Knows no Django, so that another process can do it: see ``backups.pipeline``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from backups.databases.lines import ABSENT, END, JSON, QUOTE, LinePage
from backups.records.digest import sum_of
from backups.records.jsontext import canonical_json, loads_many, plain_dumps_many

_UNFIT = b"\xff"
"""No byte of UTF-8: what becomes of control characters, which no line has."""
_CONTROL = bytes(range(32))
_FINAL = bytes.maketrans(_CONTROL, _UNFIT + b'"\n' + _UNFIT * 29)
_PLACE = b"\x7f\x7fJSON\x7f\x7f"
"""Keeps the place of a JSON column. Whether a text has it too shows in how often it is there."""
_ESCAPES = {b"\\": b"\\\\", b'"': b'\\"', b"\n": b"\\n", b"\r": b"\\r", b"\t": b"\\t", b"\b": b"\\b", b"\f": b"\\f"}
"""As orjson writes them; the backslash has to be the first."""
_QUOTE, _ABSENT, _END, _JSON = QUOTE.encode(), ABSENT.encode(), END.encode(), JSON.encode()
_FIELDS, _REFS = b'"fields":', b',"refs":{'


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


@dataclass(frozen=True, kw_only=True)
class Finisher:
    """Finishes the pages of one table that a database has written.

    ``quotes`` and ``objects`` are the quotation marks and the JSON columns in a line, ``replacements`` is what stands
    for something that is absent, the longest first, and what is meant. ``has_refs`` tells whether a line ends with the
    primary keys of its references: None where that depends on the row.
    """

    quotes: int
    objects: int
    replacements: Sequence[tuple[bytes, bytes]]
    has_refs: bool | None
    is_digested: bool

    def __call__(self, page: LinePage) -> Page | None:
        """Make the lines of a page, or return None where it has a row that the database cannot write."""
        text = page.text
        try:
            text.decode()
        except UnicodeDecodeError:
            return None  # which a database may hold, and no package
        if text.count(_QUOTE) + text.count(_ABSENT) != self.quotes * page.rows:
            return None
        objects: list[bytes] = []
        if self.objects:
            between = text.split(_JSON)
            objects = between[1::2]
            if len(between) != 2 * self.objects * page.rows + 1:
                return None
            text = _PLACE.join(between[::2])
        if page.escaped:
            if b"\\v" in text and b"\\v" in text.replace(b"\\\\", b""):
                return None  # a vertical tab, which JSON writes in another way
            text = text.replace(b'"', b'\\"')
            objects = [one.replace(b"\\\\", b"\\") for one in objects]
        else:
            for character, escape in _ESCAPES.items():
                if character in text:
                    text = text.replace(character, escape)
        for written, meant in self.replacements:
            if written in text:
                text = text.replace(written, meant)
        text = text.translate(_FINAL)
        if _UNFIT in text:
            return None
        made = self._with_objects(text, objects) if objects else self._page(text)
        return made if made is not None and made.rows == page.rows else None

    def _page(self, text: bytes, contents: bytes = b"") -> Page:
        lines = text.split(b"\n")
        content = sum_of(self._contents(contents.split(b"\n") if contents else lines)) if self.is_digested else 0
        return Page(text + b"\n", len(lines), content)

    def _with_objects(self, text: bytes, objects: Sequence[bytes]) -> Page | None:
        """Write JSON columns as they are in a line, and in a content, which has the keys in order."""
        try:
            values = loads_many([one or b"null" for one in objects])
            written, contents = plain_dumps_many(values), canonical_json(values)
        except (ValueError, TypeError):
            return None
        between = text.split(_PLACE)
        nulls = sum([value is None for value in values])  # JSON has one of its own, which is not SQL's
        if len(between) != len(objects) + 1 or nulls != objects.count(b""):
            return None
        as_content = _interleaved(between, contents) if written != contents else b""
        return self._page(_interleaved(between, written), as_content)

    def _contents(self, lines: Sequence[bytes]) -> Iterable[bytes]:
        # What follows is no text's, which has a backslash before each quotation mark, nor that of a JSON column,
        # which comes before.
        start = len(_FIELDS)
        if self.has_refs is None:
            ends = ((line, line.rfind(_REFS)) for line in lines)
            return (line[line.index(_FIELDS) + start : end if end > 0 else -1] for line, end in ends)
        if not self.has_refs:
            return (line[line.index(_FIELDS) + start : -1] for line in lines)
        return (line[line.index(_FIELDS) + start : line.rindex(_REFS)] for line in lines)


def _interleaved(between: Sequence[bytes], objects: Sequence[bytes]) -> bytes:
    whole = list(chain.from_iterable(zip(between, objects, strict=False)))
    return b"".join([*whole, between[-1]])
