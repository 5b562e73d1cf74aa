"""Rows of one database, read as records."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from functools import cached_property
from typing import Any, cast

from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ValidationError
from django.db.models import IntegerField, Model

from backups import databases
from backups.databases import base
from backups.errors import BackupError
from backups.records.compiled import function
from backups.records.identity import Part, Rule, keeps_natural_key_unique, natural_key_of, natural_key_parts
from backups.records.jsontext import canonical_json, plain_dumps_many
from backups.records.lines import LineFormat, page_of
from backups.records.pages import Page
from backups.records.record import Key, Record, parse
from backups.records.relations import column_of, final_field, get_field, related_model
from backups.records.selection import Selection
from backups.records.splitting import NULLS
from backups.records.table import GenericReference, Reference, Table, is_key_number
from backups.records.values import JSON_NULL, Encoder, decoder, encoder, plain_type

Row = Sequence[Any]
CHUNK_ROWS = 2000
"""Rows that are in memory at a time."""
FEW_ROWS = 10_000
"""Rows of a table whose natural keys are kept in memory, where a larger one refers to it. To join them instead took 8 %
of the database's time on PostgreSQL, 16 % on SQLite and 21 % on MariaDB."""
FEW_BYTES = 1024 * 1024
"""Of those natural keys. In memory they take some times as much."""
ODD_PAGES = 10
"""Pages with a row that the database cannot write until all that follow are read row by row: each costs a query."""


class RowReader:
    """Reads the rows of one table in the order of its primary key."""

    def __init__(self, table: Table, using: str, keys: KeyCache | None = None) -> None:
        self.table = table
        self.database = databases.of(using)
        self.keys = keys or KeyCache(using)
        self._selection = Selection(table.model, self.database.connection)
        self._called: list[tuple[int, type[Model]]] = []
        self._record = self._compile()

    def records(self) -> Iterator[Record]:
        """Read every row."""
        for rows in self.database.stream(self._selection, CHUNK_ROWS):
            yield from self._records(rows)

    def pages(self, *, is_digested: bool = True) -> Generator[Page]:
        """Read every row as a line of a package, many at a time; ``is_digested`` where their content is wanted, too.

        To be closed: until then no other statement may run.
        """
        if self.format.query is None:
            for rows in self.database.stream(self._selection, CHUNK_ROWS):
                yield page_of(self.table, self._records(rows))
            return
        finish, after = self.format.finisher(is_digested=is_digested), None
        for left in reversed(range(ODD_PAGES)):
            last: Page | None = None
            # Whoever has enough, or fails, must not leave the database in the middle of an answer.
            with closing(self.database.cells(self.format.query, after)) as cells:
                for written in cells:
                    page = finish(written)
                    if page is None:
                        break
                    yield page
                    last = page
                else:
                    return
            if last is not None:
                after = parse(last.lines[-1], self.table.label).pk
            size, read = base.PageSize(base.PAGE_ROWS), 0
            while read < max(written.rows, base.PAGE_ROWS) or not left:  # all of the page that has an odd one
                rows = self.database.rows_after(self._selection, after, size.rows)
                if not rows:
                    return
                size.learn(len(rows), base.weight(rows))
                read += len(rows)
                records = list(self._records(rows))
                yield page_of(self.table, records)
                after = records[-1].pk
                if type(after) is not int:
                    raise BackupError(
                        f"{self.table.label} has a row with a primary key that is no integer",
                        hint="give it one, and the table a constraint that keeps it",
                    )

    @cached_property
    def format(self) -> LineFormat:
        """How lines are made of what the database writes."""
        return LineFormat(self.table, self.database, self._identities)

    def _identities(self, model: type[Model]) -> Mapping[bytes, bytes] | None:
        return self.keys.few(model) if self._is_large else None

    @cached_property
    def _is_large(self) -> bool:
        return self.database.has_more(self.table.name, FEW_ROWS)

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

    def _compile(self) -> Callable[[Row], Record]:
        """Write the function that makes a record of a row."""
        scope: dict[str, Any] = {"Record": Record, "JSON_NULL": JSON_NULL}
        body = ["json_null, refs, keys = [], {}, {}"]
        fields = {}
        for number, field in enumerate(self.table.columns):
            value = fields[field.name] = f"f{number}"
            body.append(f"{value} = row[{self._selection.column((field.name,))}]")
            if encode := encoder(field):
                scope[f"encode_{value}"] = encode
                body.append(f"if {value} is not None: {value} = encode_{value}({value})")
            if field.name in self.table.json_fields:
                body += [f"if {value} is JSON_NULL:", f"    {value} = None", f"    json_null.append({field.name!r})"]
        for reference in self.table.references:
            if reference.parts:
                body += self._reference_code(reference, fields[reference.name], scope)
        key = self._key_code(self.table.identity.parts, scope) if self.table.stores_key else "None"
        pks = [
            self._value_code(index, encoder(final_field(field)), scope)
            for index, field in zip(self._selection.key, self.table.key_fields, strict=True)
        ]
        pk = pks[0] if len(pks) == 1 else f"[{', '.join(pks)}]"
        held = ", ".join(f"{name!r}: {value}" for name, value in fields.items())
        body.append(f"return Record({pk}, {{{held}}}, refs, keys, {key}, json_null)")
        return function(f"record of {self.table.label}", "row", body, scope)

    def _reference_code(self, reference: Reference, value: str, scope: dict[str, Any]) -> list[str]:
        """Take in the identity of the row that a reference leads to. One that dangles keeps its bare key."""
        key = self._key_code(reference.parts, scope)
        known = [self._selection.column(part.path) for part in reference.parts]
        # A natural key may be nothing but nulls; then only the primary key tells whether there is a row.
        if reference.natural and not keeps_natural_key_unique(reference.to) and not reference.parts[0].called:
            known.append(self._selection.column((reference.name, reference.to._meta.pk.name)))
        there = " or ".join(f"row[{index}] is not None" for index in dict.fromkeys(known))
        if reference.natural:
            taken = [f"    refs[{reference.name!r}] = {value}", f"    {value} = {key}"]
        else:
            taken = [f"    keys[{reference.name!r}] = {key}"]
        return [f"if {value} is not None and ({there}):", *taken]

    def _key_code(self, parts: Iterable[Part], scope: dict[str, Any]) -> str:
        """Write the list that is an identity. It has nothing but None where the row referred to does not exist."""
        codes = []
        for part in parts:
            index = self._selection.column(part.path)
            if part.called is None:
                codes.append(self._value_code(index, _encoder_at(self.table.model, part), scope))
            else:
                self._called.append((index, part.called))
                scope[f"called_{index}"] = self.keys.called(part.called)
                codes.append(f"*(called_{index}[row[{index}]] if row[{index}] is not None else [None])")
        return f"[{', '.join(codes)}]"

    def _value_code(self, index: int, encode: Encoder | None, scope: dict[str, Any]) -> str:
        if encode is None:
            return f"row[{index}]"
        scope[f"encode_{index}"] = encode
        return f"(encode_{index}(row[{index}]) if row[{index}] is not None else None)"

    def _records(self, rows: Sequence[Row]) -> Iterator[Record]:
        self._fetch_called_keys(rows)
        records = list(map(self._record, rows))
        for generic in self.table.generics:
            self._add_generic_keys(generic, records)
        return iter(records)

    def _fetch_called_keys(self, rows: Sequence[Row]) -> None:
        self.keys.trim()
        for index, called in self._called:
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


UNREADABLE = (BackupError, ValueError, TypeError, ArithmeticError)
"""What converters and encoders raise for a value. A database that fails is no matter of a value."""


class _Many(Exception):
    """Identities that are not to be kept in memory."""


class KeyCache:
    """Identities of rows that other rows refer to, where no join can give them, or not as fast. For one snapshot."""

    LIMIT = 50_000
    """Identities in memory, before more are fetched."""

    def __init__(self, using: str) -> None:
        self.using = using
        self._called: dict[type[Model], dict[Any, Key]] = {}
        self._tables: dict[type[Model], RowReader] = {}
        self._few: dict[type[Model], dict[bytes, bytes] | None] = {}

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

    def few(self, model: type[Model]) -> Mapping[bytes, bytes] | None:
        """Return the natural keys of all rows as JSON, and null, by what stands for the primary key in a page.

        None where they are many or large, or where one cannot be read, or is JSON in another form: if that matters, it
        shows where they are joined.
        """
        if model not in self._few:
            found = None
            with suppress(_Many, *UNREADABLE):
                found = self._read_few(model)
            if sum(map(len, filter(None, self._few.values()))) > self.LIMIT:
                self._few.clear()
            self._few[model] = found
        return self._few[model]

    def _read_few(self, model: type[Model]) -> dict[bytes, bytes]:
        database = databases.of(self.using)
        if database.has_more(model._meta.db_table, FEW_ROWS):
            raise _Many
        selection, parts = Selection(model, database.connection), natural_key_parts(model) or ()
        (pk,) = selection.key
        columns = [(selection.column(part.path), _encoder_at(model, part) or _unchanged) for part in parts]
        keys: dict[int, Key] = {}
        count = size = 0
        for rows in database.stream(selection, CHUNK_ROWS):
            count += len(rows)
            size += base.weight(rows)
            if size > FEW_BYTES:
                raise _Many
            for row in rows:
                if any(row[index] is not None for index, _ in columns):  # else it is no key: see RowReader
                    keys[row[pk]] = [None if row[index] is None else encode(row[index]) for index, encode in columns]
                else:
                    count -= 1
        written = plain_dumps_many(list(keys.values()))
        if len(keys) != count or written != canonical_json(list(keys.values())):
            raise ValueError("one primary key for two rows, or a natural key in another form")
        found = {str(key).encode(): key_json for key, key_json in zip(keys, written, strict=True)}
        return found | dict.fromkeys(NULLS, b"null")

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
                known[pk] = natural_key_of(instance)

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
            if is_key_number(key):
                given.setdefault(int(key), []).append(key)
        found = reader.records_with(given)
        return {key: table.identity_of(record) for record in found for key in given[record.pk]}


def _unchanged(value: Any) -> Any:
    return value


def _encoder_at(model: type[Model], part: Part) -> Encoder | None:
    for name in part.path[:-1]:
        model = related_model(get_field(model, name))
    return encoder(get_field(model, part.path[-1]))


class RowWriter:
    """Turns records into rows of query parameters for one table."""

    def __init__(self, table: Table, using: str) -> None:
        self.connection = databases.of(using).connection
        self.table = table
        key_fields = [] if table.key_reference or len(table.key_fields) > 1 else list(table.key_fields)
        self.fields = (*key_fields, *table.columns)
        self.columns = [column_of(field) for field in self.fields]
        self.has_key = bool(key_fields)
        self._decoders = [(field.name, decoder(field, self.connection)) for field in self.fields]
        self._row = self._compile()

    def row(self, record: Record, pk: Any, references: dict[str, Any]) -> Row:
        """Return the parameters of one row: its primary key in the target, and what its references point at there.

        Raises ``ValueRefused`` for a value that its field does not take.
        """
        values = record.fields | references if references else record.fields
        try:
            row: Row = self._row(pk, values, record.json_null)
        except REFUSALS as error:
            raise self._refusal(pk, values) or error from error
        return row

    def _compile(self) -> Callable[..., Row]:
        """Write the function that makes a row of a record's fields."""
        scope: dict[str, Any] = {"JSON_NULL": JSON_NULL}
        body, row = [], []
        for number, (name, decode) in enumerate(self._decoders):
            value = f"v{number}"
            row.append(value)
            scope[f"decode_{value}"] = decode
            held = "pk" if self.has_key and not number else f"fields[{name!r}]"
            plain = plain_type(self.fields[number])
            takes = f"{value} is not None" + (f" and type({value}) is not {plain.__name__}" if plain else "")
            body += [f"{value} = {held}", f"if {takes}: {value} = decode_{value}({value})"]
            if name in self.table.json_fields:
                body.append(f"elif {name!r} in json_null: {value} = decode_{value}(JSON_NULL)")
        body.append(f"return [{', '.join(row)}]")
        return function(f"row of {self.table.label}", "pk, fields, json_null", body, scope)

    def _refusal(self, pk: Any, fields: dict[str, Any]) -> ValueRefused | None:
        """Find the value that does not fit."""
        for number, (name, decode) in enumerate(self._decoders):
            is_key = self.has_key and not number
            if not is_key and name not in fields:
                return ValueRefused(name, None, "the record has no such field")
            value = pk if is_key else fields[name]
            try:
                if value is not None:
                    decode(value)
            except REFUSALS as error:
                return ValueRefused(name, value, str(error))
        return None


REFUSALS = (ValueError, TypeError, ArithmeticError, KeyError, ValidationError)
"""What fields raise for a value that they do not take."""


class ValueRefused(Exception):
    """A record's value that its field does not take."""

    def __init__(self, field: str, value: Any, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.value = value
        self.reason = reason
