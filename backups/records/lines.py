"""What a database is asked for, and how the lines of a package that reading row by row would give are made of that.

``pages`` makes them. What a database cannot write, a whole table or a page with an odd row in it, is left to
``RowReader``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, TypeAlias, cast

from django.conf import settings
from django.db.models import Model, fields

from backups.databases.base import Database
from backups.databases.cells import NO_TEXTS, Cells, Column, Kind
from backups.errors import BackupError
from backups.records.jsontext import dumps_many
from backups.records.pages import Finisher, LineForm, Maybe, Meant, Page, Part
from backups.records.record import Record
from backups.records.relations import AnyField, final_field, get_field, related_model, target_field
from backups.records.selection import Selection
from backups.records.table import Reference, Table
from backups.records.values import is_json_column, plain_type

_KINDS = {int: Kind.INTEGER, bool: Kind.BOOLEAN, str: Kind.TEXT}
_STOCK_KINDS: dict[Any, Kind] = {
    fields.DateField: Kind.DATE,
    fields.DateTimeField: Kind.MOMENT,
    fields.UUIDField: Kind.UUID,
}


Identities: TypeAlias = "Callable[[type[Model]], Mapping[bytes, bytes] | None]"
"""Gives the natural keys of all rows of a model as JSON, by primary key, or None where they have to be joined."""


def page_of(table: Table, records: Iterable[Record]) -> Page:
    """Make lines of records."""
    records = list(records)
    try:
        lines = dumps_many([record.whole(table.label) for record in records])
    except TypeError as error:  # such as bytes
        raise BackupError(
            f"{table.label} has a row with a value that is not of its field's kind: {error}",
            hint="correct the row, or the type of the column",
        ) from error
    return Page.of(lines, map(table.content_in, lines, records))


class LineFormat:
    """How the rows of a table become lines. ``query`` is None where the database cannot write their cells."""

    def __init__(self, table: Table, database: Database, identities: Identities) -> None:
        self.table = table
        self._database = database
        self._identities = identities
        self._selection = Selection(table.model, database.connection)
        self._columns: dict[str, tuple[int, Column]] = {}
        self._form: LineForm | None = None
        self.query = self._query()

    def finisher(self, *, is_digested: bool) -> Finisher:
        """Return what makes the lines of a package of the cells that the database has written."""
        return Finisher(cast("LineForm", self._form), is_digested)

    def _query(self) -> Cells | None:
        table = self.table
        if len(table.key_fields) > 1 or table.key_is_content or table.stores_key or table.generics:
            return None
        key_path = (table.key_fields[0].name,)
        key = self._column(key_path, null=False)
        if key is None or _kind(self._fields_of(key_path)[-1]) is not Kind.INTEGER:
            return None
        fields = self._fields()
        refs = self._refs()
        if fields is None or refs is None:
            return None
        columns = [column for _, column in self._columns.values()]
        self._form = LineForm(
            label=table.label,
            kinds=[column.kind for column in columns],
            pk=key,
            fields=fields,
            refs=refs,
            refs_may_be_absent=bool(refs) and all(isinstance(part, Maybe) for part in refs),
        )
        return Cells(columns, columns[key].sql, self._selection.source())

    def _fields(self) -> list[Part] | None:
        """Write what a row says. None where the database cannot."""
        references = {one.name: one for one in self._refers}
        parts: list[Part] = []
        for field in self.table.columns:
            found = self._reference(references[field.name]) if field.name in references else self._plain(field)
            if found is None:
                return None
            parts += [f'{"," if parts else "{"}"{field.name}":', *found]
        return [*parts, "}" if parts else "{}"]

    def _refs(self) -> list[Part] | None:
        """Write the primary keys behind references. None where the database cannot.

        A comma comes before each but the first one that is always there, and after those before that one.
        """
        always = [number for number, one in enumerate(self._refers) if not one.field.null]
        first = always[0] if always else -1
        parts: list[Part] = []
        for number, reference in enumerate(self._refers):
            column = self._column((reference.name,), null=reference.field.null)
            if column is None:
                return None
            lead, trail = "," if number > first else "", "," if number < first else ""
            named = [f'{lead}"{reference.name}":', *_quoted(self._kind_of(column), column), trail]
            parts += [Maybe(column, named, "")] if reference.field.null else named
        return parts

    def _reference(self, reference: Reference) -> list[Part] | None:
        """Write the identity that a reference means. None where the database cannot."""
        if not reference.natural or any(one.called for one in reference.parts):
            return None
        return self._known(reference) or self._joined(reference)

    def _known(self, reference: Reference) -> list[Part] | None:
        """Write an identity that is found by the primary key. None where that is not known, or no integer.

        A null that must not be is odd: the number is written, too.
        """
        if target_field(reference.field) != reference.to._meta.pk or _kind(reference.field) is not Kind.INTEGER:
            return None
        known = self._identities(reference.to)
        if known is None:
            return None
        column = self._column((reference.name,), null=reference.field.null)
        if column is None:
            return None
        return [Meant(column, known)]

    def _joined(self, reference: Reference) -> list[Part] | None:
        """Write an identity that is joined to the row. None where it may be made of nulls."""
        key: list[str | int] = []
        for part in reference.parts:
            if any(field.null for field in self._fields_of(part.path)[1:]):
                return None
            column = self._column(part.path, null=reference.field.null)
            if column is None:
                return None
            key += ["," if key else "[", *_quoted(self._kind_of(column), column)]
        key.append("]")
        if not reference.field.null:
            return [*key]
        own = self._column((reference.name,), null=True)
        return None if own is None else [Maybe(own, key, "null")]

    def _plain(self, field: AnyField) -> list[Part] | None:
        """Write the value of a column. None where the database cannot."""
        column = self._column((field.name,), null=field.null)
        if column is None:
            return None
        value = _quoted(self._kind_of(column), column)
        return [Maybe(column, value, "null")] if field.null else [*value]

    def _column(self, path: tuple[str, ...], *, null: bool) -> int | None:
        """Return the number of a column in the query. None for one whose kind the database cannot write."""
        kind = _kind(self._fields_of(path)[-1])
        if kind not in self._database.kinds or (kind is Kind.MOMENT and not self._has_moments_in_utc):
            return None
        sql = self._selection.sql_of(self._selection.column(path))
        number, _ = self._columns.setdefault(sql, (len(self._columns), Column(kind, sql, null)))
        return number

    def _kind_of(self, number: int) -> Kind:
        return list(self._columns.values())[number][1].kind

    @property
    def _has_moments_in_utc(self) -> bool:
        return settings.USE_TZ and self._database.connection.timezone_name == "UTC"

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


def _kind(field: AnyField) -> Kind | None:
    """Return what a column holds, or None for what only Python can write."""
    field = final_field(field)
    if is_json_column(field):
        return Kind.JSON
    plain = plain_type(field)
    return _STOCK_KINDS.get(type(field)) if plain is None else _KINDS[plain]


def _quoted(kind: Kind, column: int) -> list[str | int]:
    if kind in NO_TEXTS:
        return [column]
    return ['"', column, '+00:00"' if kind is Kind.MOMENT else '"']
