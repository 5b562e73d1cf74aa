"""Models of the columns that only PostgreSQL has. They are installed by one test alone."""

from __future__ import annotations

from typing import Any

from django.contrib.postgres import fields
from django.db import models


class CITextField(models.TextField):
    """Text that is compared without case: a type of an extension, as projects declare it since Django has none."""

    def db_type(self, connection: Any) -> str:
        return "citext"


class Column(models.Model):
    name = CITextField(unique=True)
    numbers = fields.ArrayField(models.BigIntegerField(null=True), null=True)
    texts = fields.ArrayField(fields.ArrayField(models.CharField(max_length=50)), null=True)
    moments = fields.ArrayField(models.DateTimeField(), null=True)
    store = fields.HStoreField(null=True)
    integers = fields.IntegerRangeField(null=True)
    decimals = fields.DecimalRangeField(null=True)
    times = fields.DateTimeRangeField(null=True)
    days = fields.DateRangeField(null=True)
