"""Lines of a package made into rows of query parameters, many at a time.

One function, written out for each table, does what ``parse``, ``Table.require_shape`` and ``RowWriter.row`` do for one
line after the other. It takes only what it has no doubt about, and leaves batches with anything else to them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from operator import lt
from typing import Any

import orjson
from django.conf import settings
from django.db.models import fields

from backups.databases.base import Row
from backups.records.compiled import function
from backups.records.relations import AnyField, final_field
from backups.records.rows import REFUSALS, RowWriter
from backups.records.table import Table
from backups.records.values import Decoder, decoder, plain_type

KeyOf = Callable[[Any], Any]
"""From the primary key that a row has in the package to the one that it gets."""


class LineParser:
    """Makes parameters of the lines of one table whose rows keep their primary keys.

    ``keys`` has, for each reference by name, what gives the key that it holds in the target; None where that is the
    same. For a table with references that it does not have, or with generic ones, there are no rows.
    """

    def __init__(self, table: Table, writer: RowWriter, keys: Mapping[str, KeyOf | None]) -> None:
        self.table = table
        self._connection = writer.connection
        self._writer = writer
        self._keys = keys
        known = all(one.name in keys for one in table.references)
        is_possible = known and not (table.generics or table.stores_key or len(table.key_fields) > 1)
        self._rows = self._compile() if is_possible else None

    def rows(self, lines: Sequence[bytes], after: Any = None) -> list[Row] | None:
        """Return the parameters of each line, or None where one of them wants a closer look.

        Primary keys that the database makes up have to ascend from ``after`` on.
        """
        # A blank after the colon says that a line has numbers which orjson would round: see parse().
        if self._rows is None or not all(line.startswith(b'{"model":"') for line in lines):
            return None
        try:
            rows: list[Row] = self._rows(orjson.loads(b"[%b]" % b",".join(lines)))
        except REFUSALS:
            return None
        if self.table.has_automatic_key:
            keys = [row[0] for row in rows]
            if (after is not None and keys[0] <= after) or not all(map(lt, keys, keys[1:])):
                return None
        return rows

    def _compile(self) -> Callable[..., list[Row]]:
        scope: dict[str, Any] = {"refused": _refused, "nothing": {}}
        body = ["rows = []", "for whole in wholes:"]
        body += [f"    {line}" for line in self._row_code(scope)]
        return function(f"rows of {self.table.label}", "wholes", [*body, "return rows"], scope)

    def _row_code(self, scope: dict[str, Any]) -> list[str]:
        table = self.table
        referring = {one.name: one for one in table.references}
        body = [
            "fields, refs = whole['fields'], whole.get('refs', nothing)",
            f"if whole['model'] != {table.label!r} or len(whole) != 3 + ('refs' in whole): refused()",
            f"if whole['pk'] is None or len(fields) != {len(table.columns)}: refused()",
        ]
        row, natural = [], []
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
                body.append(f"{condition}{value} = key_{value}({value})")
        count = " + ".join(f"({value} is not None)" for value in natural) or "0"
        body.append(f"if len(refs) != {count}: refused()")
        body.append(f"rows.append(({', '.join(row)},))")
        return body

    def _value_code(self, value: str, field: AnyField, scope: dict[str, Any]) -> list[str]:
        """Check a value's type, and write it as a parameter."""
        final = final_field(field)
        if plain := plain_type(final):
            return [f"{value}.__class__ is {plain.__name__} or refused()"]
        scope[f"decode_{value}"] = self._decoder(field)
        return [f"{value} = decode_{value}({value})"]

    def _decoder(self, field: AnyField) -> Decoder:
        kind = type(final_field(field))
        if kind is fields.DateField:
            return _day
        if kind is fields.DateTimeField and settings.USE_TZ and self._connection.timezone_name == "UTC":
            return _moment if self._connection.vendor == "postgresql" else _naive_moment
        return decoder(field, self._connection)


def _refused() -> None:
    raise ValueError("not a line that needs no closer look")


def _day(text: str) -> str:
    """Take a date as it is, which every engine does: no other form of ISO 8601."""
    date.fromisoformat(text)
    if len(text) != 10 or text[4] != "-" or text[7] != "-":
        _refused()
    return text


def _moment(text: str) -> str:
    """Take a moment in UTC as it is."""
    datetime.fromisoformat(text)
    is_plain = len(text) in (25, 32) and text[4] == text[7] == "-" and text[10] == "T" and text.endswith("+00:00")
    if not is_plain:
        _refused()
    return text


def _naive_moment(text: str) -> str:
    """Write a moment in UTC as Django does where columns have no time zone."""
    text = _moment(text)
    return f"{text[:10]} {text[11:-6]}"
