"""Rows of one database, read as records."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, cast

from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ValidationError
from django.db.models import IntegerField, Model

from backups import databases
from backups.records.identity import Part, Rule, keeps_natural_key_unique
from backups.records.record import Key, Record
from backups.records.relations import column_of, final_field, get_field, related_model
from backups.records.selection import Selection
from backups.records.table import GenericReference, Reference, Table
from backups.records.values import JSON_NULL, Encoder, decoder, encoder

Row = Sequence[Any]
CHUNK_ROWS = 2000
"""Rows that are in memory at a time."""


class RowReader:
    """Reads the rows of one table in the order of its primary key."""

    def __init__(self, table: Table, using: str, keys: KeyCache | None = None) -> None:
        self.table = table
        self.database = databases.of(using)
        self.keys = keys or KeyCache(using)
        self._selection = Selection(table.model, self.database.connection)
        self._key_encoders = [encoder(final_field(field)) for field in table.key_fields]
        self._columns = [(field.name, self._selection.column((field.name,))) for field in table.columns]
        self._encoders = [(field.name, encode) for field in table.columns if (encode := encoder(field)) is not None]
        self._references = [
            (reference, self._parts(reference.parts), self._existence(reference))
            for reference in table.references
            if reference.parts
        ]
        self._own_key = self._parts(table.identity.parts) if table.stores_key else []

    def records(self) -> Iterator[Record]:
        """Read every row."""
        for rows in self.database.stream(self._selection, CHUNK_ROWS):
            yield from self._records(rows)

    def records_with(self, keys: Iterable[Any]) -> Iterator[Record]:
        """Read the rows that have these primary keys, in no order. Keys are as records hold them."""
        decode = [decoder(field, self.database.connection) for field in self.table.key_fields]
        many = len(decode) > 1
        parameters = (
            [decode(value) for decode, value in zip(decode, key if many else [key], strict=True)] for key in keys
        )
        for rows in self.database.rows_with(self._selection, parameters, CHUNK_ROWS):
            yield from self._records(rows)

    def records_where(self, values: dict[str, Any]) -> Iterator[Record]:
        """Read the rows that have these query parameters in these columns."""
        columns = [f"t0.{self.database.connection.ops.quote_name(column)} = %s" for column in values]
        yield from self._records(self.database.select(self._selection, " AND ".join(columns), list(values.values())))

    def _parts(self, parts: Iterable[Part]) -> list[tuple[int, Encoder | None, type[Model] | None]]:
        return [
            (
                self._selection.column(part.path),
                None if part.called else _encoder_at(self.table.model, part),
                part.called,
            )
            for part in parts
        ]

    def _existence(self, reference: Reference) -> int | None:
        """Select what tells whether the row referred to exists, where a key of nothing but nulls cannot tell."""
        if not reference.natural or keeps_natural_key_unique(reference.to) or reference.parts[0].called:
            return None
        return self._selection.column((reference.name, reference.to._meta.pk.name))

    def _records(self, rows: Sequence[Row]) -> Iterator[Record]:
        self._fetch_called_keys(rows)
        records = [self._record(row) for row in rows]
        for generic in self.table.generics:
            self._add_generic_keys(generic, records)
        return iter(records)

    def _record(self, row: Row) -> Record:
        fields: dict[str, Any] = {name: row[index] for name, index in self._columns}
        json_null = []
        for name, encode in self._encoders:
            value = fields[name]
            if value is not None:
                fields[name] = value = encode(value)
                if value is JSON_NULL:
                    fields[name] = None
                    json_null.append(name)
        record = Record(self._primary_key(row), fields, json_null=json_null)
        for reference, parts, existence in self._references:
            value = fields[reference.name]
            if value is None:
                continue
            key = self._key(row, parts)
            if all(part is None for part in key) and (existence is None or row[existence] is None):
                continue  # a reference that dangles keeps its bare key
            if reference.natural:
                record.refs[reference.name] = value
                fields[reference.name] = key
            else:
                record.keys[reference.name] = key
        if self._own_key:
            record.key = self._key(row, self._own_key)
        return record

    def _primary_key(self, row: Row) -> Any:
        if len(self._selection.key) == 1:
            value, encode = row[self._selection.key[0]], self._key_encoders[0]
            return encode(value) if encode else value
        return [
            encode(row[index]) if encode else row[index]
            for index, encode in zip(self._selection.key, self._key_encoders, strict=True)
        ]

    def _key(self, row: Row, parts: Sequence[tuple[int, Encoder | None, type[Model] | None]]) -> Key:
        """Put an identity together. Nothing but None where the row referred to does not exist."""
        key: Key = []
        for index, encode, called in parts:
            value = row[index]
            if called is not None and value is not None:
                key += self.keys.called(called)[value]
            else:
                key.append(encode(value) if encode and value is not None else value)
        return key

    def _fetch_called_keys(self, rows: Sequence[Row]) -> None:
        self.keys.trim()
        parts = [part for _, parts, _ in self._references for part in parts] + self._own_key
        for index, _, called in parts:
            if called is not None:
                self.keys.fetch_called(called, {row[index] for row in rows if row[index] is not None})

    def _add_generic_keys(self, generic: GenericReference, records: Sequence[Record]) -> None:
        by_model: dict[type[Model], list[Record]] = {}
        for record in records:
            content_type = record.refs.get(generic.content_type)
            model = generic.to or self.keys.content_types.get(content_type)
            if model is not None and record.fields[generic.object_id] is not None:
                by_model.setdefault(model, []).append(record)
        for model, referring in by_model.items():
            found = self.keys.identities(model, {record.fields[generic.object_id] for record in referring})
            for record in referring:
                if key := found.get(record.fields[generic.object_id]):
                    record.keys[generic.object_id] = [model._meta.label_lower, *key]


_INTEGER = re.compile("-?[0-9]+")


class KeyCache:
    """Identities of rows that other rows refer to, where no join can give them. Bounded, for one snapshot."""

    LIMIT = 50_000

    def __init__(self, using: str) -> None:
        self.using = using
        self._called: dict[type[Model], dict[Any, Key]] = {}
        self._tables: dict[type[Model], RowReader] = {}

    @cached_property
    def content_types(self) -> dict[Any, type[Model]]:
        """The models that the database's content types stand for; stale ones are left out."""
        rows = ContentType._base_manager.using(self.using).values_list("pk", "app_label", "model")
        models: dict[Any, type[Model]] = {}
        for pk, app_label, name in rows:
            content_type = ContentType(app_label=app_label, model=name)
            if model := content_type.model_class():
                models[pk] = cast("type[Model]", model._meta.concrete_model)
        return models

    def called(self, model: type[Model]) -> dict[Any, Key]:
        return self._called.setdefault(model, {})

    def trim(self) -> None:
        """Forget keys where there are too many. Not to be called between fetching and use."""
        for known in self._called.values():
            if len(known) > self.LIMIT:
                known.clear()

    def fetch_called(self, model: type[Model], keys: set[Any]) -> None:
        """Call ``natural_key()`` of the rows with these primary keys."""
        known = self.called(model)
        if missing := keys - known.keys():
            for pk, instance in model._base_manager.using(self.using).in_bulk(list(missing)).items():
                known[pk] = list(cast("Any", instance).natural_key())

    def identities(self, model: type[Model], keys: set[Any]) -> dict[Any, Key]:
        """Return the identities of the rows that have these primary keys, by key as given; missing rows are left out.

        Only of rows that may have another key elsewhere, which are integers: what else stands in a text column is text.
        """
        reader = self._tables.get(model)
        if reader is None:
            reader = self._tables[model] = RowReader(Table(model), self.using, self)
        table = reader.table
        if len(table.key_fields) > 1 or (table.identity.rule is Rule.PRIMARY_KEY and table.key_reference is None):
            return {}  # the bare key is the identity
        if not isinstance(final_field(table.key_fields[0]), IntegerField):
            return {}
        given: dict[int, list[Any]] = {}
        for key in keys:
            if _INTEGER.fullmatch(str(key)) and abs(int(key)) < 2**63:
                given.setdefault(int(key), []).append(key)
        found = reader.records_with(given)
        return {key: table.identity_of(record) for record in found for key in given[record.pk]}


def _encoder_at(model: type[Model], part: Part) -> Encoder | None:
    for name in part.path[:-1]:
        model = related_model(get_field(model, name))
    return encoder(get_field(model, part.path[-1]))


class RowWriter:
    """Turns records into rows of query parameters for one table."""

    def __init__(self, table: Table, using: str) -> None:
        connection = databases.of(using).connection
        self.table = table
        key_fields = [] if table.key_reference or len(table.key_fields) > 1 else list(table.key_fields)
        self.columns = [column_of(field) for field in (*key_fields, *table.columns)]
        self._decode_key = decoder(key_fields[0], connection) if key_fields else None
        self._decoders = [(field.name, decoder(field, connection)) for field in table.columns]

    def row(self, record: Record, pk: Any, references: dict[str, Any]) -> Row:
        """Return the parameters of one row: its primary key in the target, and what its references point at there.

        Raises ``ValueRefused`` for a value that its field does not take.
        """
        row = []
        name, value = self.table.key_name, pk
        try:
            if self._decode_key is not None:
                row.append(self._decode_key(pk))
            for name, decode in self._decoders:
                value = references[name] if name in references else record.fields[name]
                if value is not None:
                    value = decode(value)
                elif name in record.json_null:
                    value = decode(JSON_NULL)
                row.append(value)
        except KeyError as error:
            raise ValueRefused(name, None, "the record has no such field") from error
        except (ValueError, TypeError, ArithmeticError, ValidationError) as error:
            raise ValueRefused(name, value, str(error)) from error
        return row


class ValueRefused(Exception):
    """A record's value that its field does not take."""

    def __init__(self, field: str, value: Any, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.value = value
        self.reason = reason
