"""A private database for what would not fit into memory."""

from __future__ import annotations

import itertools
import json
import sqlite3
from typing import Any

from backups.records.jsontext import dumps


class Scratch:
    """A private SQLite database that lives in memory until it grows, then in an unnamed temporary file.

    One thread at a time may use it.
    """

    def __init__(self) -> None:
        self.connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self.connection.execute("PRAGMA synchronous = OFF")
        self.connection.execute("PRAGMA journal_mode = OFF")  # nothing here outlives the process
        self._numbers = itertools.count()

    def new_name(self, prefix: str) -> str:
        return f"{prefix}{next(self._numbers)}"

    def close(self) -> None:
        self.connection.close()


def as_cell(pk: Any) -> Any:
    """A primary key as SQLite holds it: a composite one or one of 64 bits as JSON, another type as JSON has it."""
    if isinstance(pk, list) or (type(pk) is int and pk >= 2**63):
        return dumps(pk)
    return pk if pk is None or isinstance(pk, int | float | str) else json.loads(dumps(pk))


def from_cell(cell: Any) -> Any:
    return json.loads(cell) if isinstance(cell, bytes) else cell
