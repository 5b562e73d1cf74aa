"""Models of tables that a database lists by other names, and of columns that hold what Django would not write."""

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


class Number(models.Model):
    real = models.FloatField(null=True)
    exact = models.DecimalField(max_digits=12, decimal_places=2, null=True)
    wide = models.DecimalField(max_digits=40, decimal_places=20, null=True)
