"""What a database is asked for, so that it writes the lines of a package that reading row by row would give.

``pages`` finishes them. What a database cannot write, a whole table or a page with an odd row in it, is left to
``RowReader``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, TypeVar, cast

from django.conf import settings
from django.db.models import fields

from backups.databases.base import Database
from backups.databases.lines import ABSENT, JSON, QUOTE, Choice, Kind, Lines, Piece, Value
from backups.records.jsontext import dumps_many
from backups.records.pages import Finisher, Page
from backups.records.record import Record
from backups.records.relations import AnyField, final_field, get_field, related_model
from backups.records.selection import Selection
from backups.records.table import Reference, Table
from backups.records.values import is_json_column, plain_type

_KINDS = {int: Kind.INTEGER, bool: Kind.BOOLEAN, str: Kind.TEXT}
_STOCK_KINDS: dict[Any, Kind] = {
    fields.DateField: Kind.DATE,
    fields.DateTimeField: Kind.MOMENT,
    fields.UUIDField: Kind.UUID,
}


def page_of(table: Table, records: Iterable[Record]) -> Page:
    """Make lines of records."""
    records = list(records)
    lines = dumps_many([record.whole(table.label) for record in records])
    return Page.of(lines, map(table.content_in, lines, records))


_Any = TypeVar("_Any", bound=Piece)


class LineFormat:
    """How the rows of a table become lines. ``query`` is None where the database cannot write them."""

    def __init__(self, table: Table, database: Database, selection: Selection) -> None:
        self.table = table
        self._database = database
        self._selection = selection
        self._refs_may_be_absent = False
        self._absent: dict[str, str] = {}
        self.query = self._query()

    def finisher(self, *, is_digested: bool) -> Finisher:
        """Return what makes the lines of a package of those that the database has written."""
        return Finisher(
            quotes=_quotes_in(cast("Lines", self.query).pieces),
            objects=len(self.table.json_fields),
            replacements=self._replacements,
            has_refs=None if self._refs_may_be_absent else bool(self._refers),
            is_digested=is_digested,
        )

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
        if self._refs_may_be_absent and self.table.json_fields:
            return None  # what is in a JSON column could be taken for them
        return Lines(_merged([*pieces, "}"]), key.sql, self._selection.source())

    def _refs(self) -> list[Piece]:
        """Write the primary keys behind references, each after a comma but for the first."""
        pieces: list[Piece] = []
        for reference in self._refers:
            value = cast("list[Value | str]", self._plain((reference.name,), null=False))
            comma = "" if not pieces and not reference.field.null else ","
            named = [f"{comma}{QUOTE}{reference.name}{QUOTE}:", *value]
            if reference.field.null:
                column = self._column((reference.name,))
                absent = ABSENT * _quotes_in(named) + "-"
                self._absent[absent] = ""
                pieces.append(Choice(column, column, absent, _merged(named)))
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
        key = _merged(["[", *key[1:], "]"])
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

    @property
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
    if is_json_column(field):
        return Kind.JSON
    plain = plain_type(field)
    return _STOCK_KINDS.get(type(field)) if plain is None else _KINDS[plain]


def _merged(pieces: Sequence[_Any]) -> list[_Any]:
    """Join what always stands together: a database takes as long for a short piece as for a long one."""
    merged: list[Any] = []
    for piece in pieces:
        if merged and isinstance(piece, str) and isinstance(merged[-1], str):
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged


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
