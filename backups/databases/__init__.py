"""The same few operations on every engine: a module for each, and ``base`` for any that Django supports."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backups.databases.base import Database

_MODULES = {"postgresql": "postgresql", "mysql": "mysql", "sqlite": "sqlite"}


def of(using: str) -> Database:
    """Return the operations on the database ``using``, by its connection's vendor."""
    from django.db import connections  # the lines that a database writes are finished where there is no Django

    connection = connections[using]
    module = import_module(f"backups.databases.{_MODULES.get(connection.vendor, 'base')}")
    database: Database = module.Database(connection)
    return database
