"""A record: one row of one table, as one JSON line. ``FORMAT.md`` is the specification."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from backups.errors import PackageDamaged
from backups.records.jsontext import dumps, exact_loads

Key = list[Any]
"""An identity or a natural key, as JSON holds it."""


@dataclass(slots=True)
class Record:
    """One row. ``fields`` is what a Django fixture object has; the rest is what ``loaddata`` ignores.

    ``refs`` has the primary keys behind references that ``fields`` gives as natural keys; ``keys`` the identities
    behind references that ``fields`` gives as bare primary keys; ``key`` the row's own natural key where ``fields``
    does not hold it; ``json_null`` the names of fields that hold JSON null, not SQL NULL.
    """

    pk: Any
    fields: dict[str, Any]
    refs: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, Key] = field(default_factory=dict)
    key: Key | None = None
    json_null: list[str] = field(default_factory=list)

    @property
    def weight(self) -> int:
        """About how many bytes its values have, as far as that varies."""
        values = self.fields.values()
        texts = sum([len(value) for value in values if isinstance(value, str)])
        return texts + sum([len(dumps(value)) for value in values if isinstance(value, dict | list)])

    def line(self, label: str) -> bytes:
        """Write the record as one line of a package."""
        return dumps(self.whole(label))

    def whole(self, label: str) -> dict[str, Any]:
        """Return the object that a line is."""
        whole: dict[str, Any] = {"model": label, "pk": self.pk, "fields": self.fields}
        if self.refs:
            whole["refs"] = self.refs
        if self.keys:
            whole["keys"] = self.keys
        if self.key is not None:
            whole["key"] = self.key
        if self.json_null:
            whole["json_null"] = self.json_null
        return whole


def parse(line: bytes, label: str) -> Record:
    """Read one line of a package. Raises ``PackageDamaged`` for anything but a record of the model ``label``."""
    try:
        # orjson writes no blanks, so a blank says that the line was written by the standard library.
        whole = orjson.loads(line) if line.startswith(b'{"model":"') else exact_loads(line)
        if whole.pop("model") != label:
            raise PackageDamaged(f"a record among those of {label} belongs to another model")
        record = Record(**whole)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise PackageDamaged(f"a record of {label} cannot be read: {error}") from error
    is_sound = (
        type(record.fields) is dict
        and type(record.refs) is dict
        and type(record.keys) is dict
        and type(record.json_null) is list
        and (record.key is None or type(record.key) is list)
    )
    if not is_sound:
        raise PackageDamaged(f"a record of {label} has a part of the wrong type")
    return record
