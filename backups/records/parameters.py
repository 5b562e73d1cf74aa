"""How the lines of one table become rows of query parameters, many at a time: what ``parsing`` is told to do.

One function, written out for each table, does what ``parse``, ``Table.require_shape`` and ``RowWriter.row`` do for one
line after the other. It takes only what it has no doubt about, and leaves batches with anything else to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db.models import fields

from backups.pipeline import mapped
from backups.records.jsontext import for_json_column, for_jsonb_column
from backups.records.parsing import Lines, Parsed, Parser, day, moment, naive_moment
from backups.records.relations import AnyField, final_field
from backups.records.rows import RowWriter
from backups.records.table import Table
from backups.records.values import Decoder, decoder, is_json_column, plain_type

Keys = Callable[[Any], Any] | dict[Any, Any]
"""From the primary key that a row has in the package to the one that it gets; a dict has only those that change."""


class LineParser:
    """Writes the parser of the lines of one table whose rows keep their primary keys.

    ``keys`` has, for each reference by name, what gives the key that it holds in the target; None where that is the
    same. ``parser`` is None for a table with references that it does not have, or with generic ones.
    """

    def __init__(self, table: Table, writer: RowWriter, keys: Mapping[str, Keys | None], *, is_text: bool) -> None:
        self.table = table
        self._connection = writer.connection
        self._writer = writer
        self._keys = keys
        self.is_portable = not any(map(callable, keys.values()))
        """Whether another process can parse: it has no connection."""
        known = all(one.name in keys for one in table.references)
        is_possible = known and not (table.generics or table.stores_key or len(table.key_fields) > 1)
        self.parser = self._parser(is_text) if is_possible else None

    def _parser(self, is_text: bool) -> Parser:
        scope: dict[str, Any] = {}
        body, values, texts = self._row_code(scope)
        known = [text for text in texts if text is not None]
        return Parser(
            label=self.table.label,
            body=body,
            values=values,
            texts=known if len(known) == len(texts) else None,
            scope=scope,
            is_text=is_text,
        )

    def parsed(self, batches: Iterable[Lines]) -> Iterator[Parsed | None]:
        """Yield what the database takes for each batch of lines, or None where one of them wants a closer look."""
        if self.parser is None:
            return (None for _ in batches)
        if not self.is_portable:
            return map(self.parser, batches)
        # A server is a process, too: three on two processors take 1.1 times as long as two.
        return mapped(self.parser, batches, processors=3 if self.parser.is_text else 2)

    def _row_code(self, scope: dict[str, Any]) -> tuple[list[str], list[str], list[str | None]]:
        """Write the code for a row, the names of its values, and expressions for these as text, as far as known."""
        table = self.table
        referring = {one.name: one for one in table.references}
        body = [
            "fields, refs = whole['fields'], whole.get('refs', nothing)",
            f"if whole['model'] != {table.label!r} or len(whole) != 3 + ('refs' in whole): refused()",
            f"if whole['pk'] is None or len(fields) != {len(table.columns)}: refused()",
        ]
        row, natural, texts = [], [], list[str | None]()
        if table.has_automatic_key:
            body += ["if after is not None and whole['pk'] <= after: refused()", "after = whole['pk']"]
        for number, field in enumerate(self._writer.fields):
            value = f"v{number}"
            row.append(value)
            is_key = self._writer.has_key and not number
            body.append(f"{value} = whole['pk']" if is_key else f"{value} = fields[{field.name!r}]")
            reference = referring.get(field.name)
            condition = f"if {value} is not None: " if field.null else ""
            if reference is not None and reference.parts:
                if reference.natural:
                    natural.append(value)
                    body += [
                        f"if {value} is not None:",
                        f"    if type({value}) is not list: refused()",
                        f"    {value} = refs[{field.name!r}]",
                    ]
                else:
                    body.append("refused()")
            body += [condition + line for line in self._value_code(value, field, scope)]
            if reference is not None and (key := self._keys[field.name]) is not None:
                scope[f"key_{value}"] = key
                call = f"key_{value}.get({value}, {value})" if isinstance(key, dict) else f"key_{value}({value})"
                body.append(f"{condition}{value} = {call}")
            is_moved = reference is not None and self._keys[field.name] is not None
            texts.append(self._text_code(value, field, is_moved=is_moved))
        count = " + ".join(f"({value} is not None)" for value in natural) or "0"
        body.append(f"if len(refs) != {count}: refused()")
        return body, row, texts

    def _value_code(self, value: str, field: AnyField, scope: dict[str, Any]) -> list[str]:
        """Check a value's type, and write it as a parameter."""
        final = final_field(field)
        if plain := plain_type(final):
            return [f"{value}.__class__ is {plain.__name__} or refused()"]
        scope[f"decode_{value}"] = self._decoder(field)
        never = [] if field.null else [f"{value} is not None or refused()"]
        return [*never, f"{value} = decode_{value}({value})"]

    def _text_code(self, value: str, field: AnyField, *, is_moved: bool) -> str | None:
        """Write a value as text, where its line has no backslash. None where that is not known."""
        final = final_field(field)
        plain = plain_type(final)
        is_json = is_json_column(final)
        if not (plain or is_json or self._is_date_in_text(final)) or (is_moved and plain is not int):
            return None
        text = f"+{value}" if plain is bool else f"escaped({value})" if is_json else value
        return f"null if {value} is None else {text}" if field.null else text

    def _is_date_in_text(self, final: AnyField) -> bool:
        return self._decoder(final) in (day, moment, naive_moment)

    def _decoder(self, field: AnyField) -> Decoder:
        final = final_field(field)
        is_postgresql = self._connection.vendor == "postgresql"
        if is_json_column(final):
            return for_jsonb_column if is_postgresql else for_json_column
        if type(final) is fields.DateField:
            return day
        if type(final) is fields.DateTimeField and settings.USE_TZ and self._connection.timezone_name == "UTC":
            return moment if is_postgresql else naive_moment
        self.is_portable = False
        return _refusing(decoder(field, self._connection))


def _refusing(decode: Decoder) -> Decoder:
    """Let a decoder raise nothing of Django's own."""

    def decoded(value: Any) -> Any:
        try:
            return decode(value)
        except ValidationError as error:
            raise ValueError("the field does not take the value") from error

    return decoded
