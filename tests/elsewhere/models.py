"""Models of tables that a database does not list by the names that the models have for them."""

from __future__ import annotations

from django.db import models


class Elsewhere(models.Model):
    """In another schema of PostgreSQL, as projects name it."""

    name = models.CharField(max_length=50)

    class Meta:
        managed = False
        db_table = 'elsewhere"."things'


class InAnotherCase(models.Model):
    name = models.CharField(max_length=50)

    class Meta:
        managed = False
        db_table = "Things"
