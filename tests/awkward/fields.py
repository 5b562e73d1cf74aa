"""Fields whose values are one thing in Python and another in the database."""

from __future__ import annotations

import base64
import json
from typing import Any

from django.db import models


class ScrambledField(models.TextField):
    """Stored otherwise than it is seen, as encrypted fields are."""

    def get_prep_value(self, value: Any) -> Any:
        return None if value is None else base64.b64encode(value.encode()).decode()

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return None if value is None else base64.b64decode(value).decode()


class SealedJSONField(models.JSONField):
    """JSON that is no JSON in the database."""

    def get_internal_type(self) -> str:
        return "TextField"

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        return None if value is None else base64.b64encode(json.dumps(value, cls=self.encoder).encode()).decode()

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return None if value is None else json.loads(base64.b64decode(value), cls=self.decoder)


class Point:
    def __init__(self, x: int, y: int) -> None:
        self.x, self.y = x, y

    def __repr__(self) -> str:
        return f"Point({self.x}, {self.y})"


class PointField(models.Field):
    """A type of its own in Python, and text in the database and in fixtures."""

    def get_internal_type(self) -> str:
        return "CharField"

    def db_type(self, connection: Any) -> str:
        return "varchar(50)"

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return self.to_python(value)

    def to_python(self, value: Any) -> Any:
        if value is None or isinstance(value, Point):
            return value
        x, y = value.split(";")
        return Point(int(x), int(y))

    def get_prep_value(self, value: Any) -> Any:
        return None if value is None else f"{value.x};{value.y}"

    def value_to_string(self, obj: Any) -> str:
        return str(self.get_prep_value(self.value_from_object(obj)))
