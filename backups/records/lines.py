"""Lines of a package that a database has written, made into the bytes that reading row by row would give.

Pages of them are handled in a few passes over all their bytes: a row that Python makes a line of costs five times as
much. What a database cannot write, a whole table or a page with an odd row in it, is left to ``RowReader``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import chain
from typing import Any, cast

from django.conf import settings
from django.db.models import JSONField, fields

from backups.databases.base import Database
from backups.databases.lines import ABSENT, END, JSON, QUOTE, Choice, Kind, LinePage, Lines, Piece, Value
from backups.records.record import Record
from backups.records.relations import AnyField, final_field, get_field, related_model
from backups.records.selection import Selection
from backups.records.table import Reference, Table, canonical_json
from backups.records.values import dumps_many, loads_many, plain_dumps_many, plain_type

_KINDS = {int: Kind.INTEGER, bool: Kind.BOOLEAN, str: Kind.TEXT}
_STOCK_KINDS: dict[Any, Kind] = {
    fields.DateField: Kind.DATE,
    fields.DateTimeField: Kind.MOMENT,
    fields.UUIDField: Kind.UUID,
}

_UNFIT = b"\xff"
"""No byte of UTF-8: what becomes of control characters, which no line has."""
_CONTROL = bytes(range(32))
_FINAL = bytes.maketrans(_CONTROL, _UNFIT + b'"\n' + _UNFIT * 29)
_FINAL_ESCAPED = bytes.maketrans(_CONTROL, _UNFIT + b'"' + _UNFIT * 8 + b"\n" + _UNFIT * 21)
_PLACE = b"\x7f\x7fJSON\x7f\x7f"
"""Keeps the place of a JSON column. Whether a text has it too shows in how often it is there."""
_ESCAPES = {b"\\": b"\\\\", b'"': b'\\"', b"\n": b"\\n", b"\r": b"\\r", b"\t": b"\\t", b"\b": b"\\b", b"\f": b"\\f"}
"""As orjson writes them; the backslash has to be the first."""
_QUOTE, _ABSENT, _END, _JSON = QUOTE.encode(), ABSENT.encode(), END.encode(), JSON.encode()
_FIELDS, _REFS = b'"fields":', b',"refs":{'


class Page:
    """Some lines of one table, without line feeds. ``contents`` is what the rows say: see ``Table.content``."""

    def __init__(self, lines: Sequence[bytes], contents: Iterable[bytes]) -> None:
        self.lines = lines
        self.contents = contents

    @property
    def block(self) -> bytes:
        """The lines as they are in a package."""
        return b"\n".join([*self.lines, b""])

    @classmethod
    def of(cls, table: Table, records: Iterable[Record]) -> Page:
        """Make lines of records."""
        records = list(records)
        lines = dumps_many([record.whole(table.label) for record in records])
        return cls(lines, map(table.content_in, lines, records))


class LineFormat:
    """How the rows of a table become lines. ``query`` is None where the database cannot write them."""

    def __init__(self, table: Table, database: Database, selection: Selection) -> None:
        self.table = table
        self._database = database
        self._selection = selection
        self._objects = len(table.json_fields)
        self._refs_may_be_absent = False
        self._absent: dict[str, str] = {}
        self.query = self._query()

    def finish(self, page: LinePage) -> Page | None:
        """Make the lines of a page, or return None where it has a row that the database cannot write."""
        text = page.text
        if text.count(_QUOTE) + text.count(_ABSENT) != self._quotes * page.rows:
            return None
        objects: list[bytes] = []
        if self._objects:
            between = text.split(_JSON)
            objects = between[1::2]
            if len(between) != 2 * self._objects * page.rows + 1:
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
        for written, meant in self._replacements:
            if written in text:
                text = text.replace(written, meant)
        text = text.translate(_FINAL_ESCAPED if page.escaped else _FINAL)
        if _UNFIT in text:
            return None
        made = self._with_objects(text, objects) if objects else self._page(text)
        return made if made is not None and len(made.lines) == page.rows else None

    def _page(self, text: bytes, contents: bytes = b"") -> Page:
        lines = text.split(b"\n")
        return Page(lines, self._contents(contents.split(b"\n") if contents else lines))

    def _with_objects(self, text: bytes, objects: Sequence[bytes]) -> Page | None:
        """Write JSON columns as they are in a line, and in a content, which has the keys in order."""
        if b"null" in objects:
            return None  # which is not SQL's
        try:
            values = loads_many([one or b"null" for one in objects])
            written, contents = plain_dumps_many(values), canonical_json(values)
        except (ValueError, TypeError):
            return None
        between = text.split(_PLACE)
        if len(between) != len(objects) + 1:
            return None
        as_content = _interleaved(between, contents) if written != contents else b""
        return self._page(_interleaved(between, written), as_content)

    def _contents(self, lines: Sequence[bytes]) -> Iterable[bytes]:
        # What follows is no text's, which has a backslash before each quotation mark, nor that of a JSON column,
        # which comes before.
        start = len(_FIELDS)
        if self._refs_may_be_absent:
            ends = ((line, line.rfind(_REFS)) for line in lines)
            return (line[line.index(_FIELDS) + start : end if end > 0 else -1] for line, end in ends)
        if not self._refers:
            return (line[line.index(_FIELDS) + start : -1] for line in lines)
        return (line[line.index(_FIELDS) + start : line.rindex(_REFS)] for line in lines)

    # What the query is made of

    def _query(self) -> Lines | None:
        table = self.table
        if len(table.key_fields) > 1 or table.key_is_content or table.stores_key or table.generics:
            return None
        key = self._value((table.key_fields[0].name,))
        if key is None or key.kind is not Kind.INTEGER:
            return None
        pieces: list[Piece] = [f"{{{QUOTE}model{QUOTE}:{QUOTE}{table.label}{QUOTE},{QUOTE}pk{QUOTE}:", key]
        references = {one.name: one for one in self._refers}
        lead = f",{QUOTE}fields{QUOTE}:{{"
        for field in table.columns:
            found = self._reference(references[field.name]) if field.name in references else self._plain((field.name,))
            if found is None:
                return None
            pieces += [f"{lead}{QUOTE}{field.name}{QUOTE}:", *found]
            lead = ","
        pieces.append("}" if table.columns else f"{lead}}}")
        pieces += self._refs()
        if self._refs_may_be_absent and self._objects:
            return None  # what is in a JSON column could be taken for them
        return Lines([*pieces, "}"], key.sql, self._selection.source())

    def _refs(self) -> list[Piece]:
        """Write the primary keys behind references, each after a comma but for the first."""
        pieces: list[Piece] = []
        for reference in self._refers:
            value = cast("list[Value | str]", self._plain((reference.name,), null=False))
            comma = "" if not pieces and not reference.field.null else ","
            named = [f"{comma}{QUOTE}{reference.name}{QUOTE}:", *value]
            if reference.field.null:
                absent = ABSENT * _quotes_in(named) + "-"
                self._absent[absent] = ""
                pieces.append(Choice(self._column((reference.name,)), self._column((reference.name,)), absent, named))
            else:
                pieces += named
        self._refs_may_be_absent = bool(pieces) and all(one.field.null for one in self._refers)
        return [f",{QUOTE}refs{QUOTE}:{{", *pieces, "}"] if pieces else []

    def _reference(self, reference: Reference) -> list[Piece] | None:
        """Write the identity that a reference means. None where it may be made of nulls, or is no list of values."""
        if not reference.natural or any(one.called for one in reference.parts):
            return None
        key: list[Value | str] = []
        for part in reference.parts:
            if any(field.null for field in self._fields_of(part.path)[1:]):
                return None
            value = self._plain(part.path, null=False)
            if value is None:
                return None
            key += [",", *value]
        key = ["[", *key[1:], "]"]
        if not reference.field.null:
            return [*key]
        absent = ABSENT * _quotes_in(key) + "null"
        self._absent[absent] = "null"
        return [Choice(self._column((reference.name,)), self._column(reference.parts[0].path), absent, key)]

    def _plain(self, path: tuple[str, ...], *, null: bool = True) -> list[Value | str] | None:
        """Write the value of a column. With ``null`` it may be null where its field says so."""
        value = self._value(path, null=null)
        if value is None:
            return None
        if value.kind is Kind.JSON:
            return [JSON, value, JSON]
        if not value.is_quoted:
            return [value]
        if not value.null:
            return [QUOTE, value, QUOTE]
        self._absent[f"{ABSENT * 2}null"] = "null"
        return [value]

    def _value(self, path: tuple[str, ...], *, null: bool = True) -> Value | None:
        field = self._fields_of(path)[-1]
        kind = _kind(field)
        if kind not in self._database.WRITES or (kind is Kind.MOMENT and not self._has_moments_in_utc):
            return None
        return Value(kind, self._column(path), null and field.null)

    @property
    def _has_moments_in_utc(self) -> bool:
        return settings.USE_TZ and self._database.connection.timezone_name == "UTC"

    def _column(self, path: tuple[str, ...]) -> str:
        return self._selection.sql_of(self._selection.column(path))

    def _fields_of(self, path: tuple[str, ...]) -> list[AnyField]:
        found, model = [], self.table.model
        for name in path:
            found.append(get_field(model, name))
            if found[-1].remote_field:
                model = related_model(found[-1])
        return found

    @cached_property
    def _refers(self) -> list[Reference]:
        return [one for one in self.table.references if one.parts]

    @cached_property
    def _quotes(self) -> int:
        """Quotation marks in a line."""
        return _quotes_in(cast("Lines", self.query).pieces)

    @cached_property
    def _replacements(self) -> list[tuple[bytes, bytes]]:
        """What stands for something that is absent, the longest first."""
        found = sorted(self._absent.items(), key=lambda one: -len(one[0]))
        if self._refs_may_be_absent:
            found.append((f",{QUOTE}refs{QUOTE}:{{}}", ""))
        if self._refers and self._refers[0].field.null:
            found.append((f"{QUOTE}refs{QUOTE}:{{,", f"{QUOTE}refs{QUOTE}:{{"))
        return [(written.encode(), meant.encode()) for written, meant in found]


def _kind(field: AnyField) -> Kind | None:
    """Return what a column holds, or None for what only Python can write."""
    field = final_field(field)
    if isinstance(field, JSONField):
        return Kind.JSON
    plain = plain_type(field)
    return _STOCK_KINDS.get(type(field)) if plain is None else _KINDS[plain]


def _quotes_in(pieces: Sequence[Piece]) -> int:
    """Count the quotation marks of a line, which are the same whatever its values are."""
    count = 0
    for piece in pieces:
        if isinstance(piece, str):
            count += piece.count(QUOTE)
        elif isinstance(piece, Choice):
            count += _quotes_in(piece.pieces)
        elif piece.null and piece.is_quoted:
            count += 2
    return count


def _interleaved(between: Sequence[bytes], objects: Sequence[bytes]) -> bytes:
    whole = list(chain.from_iterable(zip(between, objects, strict=False)))
    return b"".join([*whole, between[-1]])
