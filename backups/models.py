"""The catalogue of packages and the reports of operations. These tables are never part of a package or a restore."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models.signals import pre_delete
from django.dispatch import receiver

CHARACTERS = 255
"""The longest text that every engine takes where it is to be unique."""


class Backup(models.Model):
    """A package as the catalogue remembers it; whether the storage still holds it, ``list_backups`` says."""

    class Kind(models.TextChoices):
        BACKUP = "backup"
        SAFETY = "safety", "safety backup"

    name = models.CharField(max_length=CHARACTERS, unique=True)
    package_id = models.CharField(max_length=32)
    kind = models.CharField(max_length=10, choices=Kind)
    created = models.DateTimeField(db_index=True)
    size = models.BigIntegerField(help_text="bytes")
    rows = models.BigIntegerField()
    files = models.BigIntegerField()
    note = models.CharField(max_length=CHARACTERS, blank=True)
    pinned = models.BooleanField(default=False, help_text="not to be deleted: what undoing needs, or somebody has kept")

    class Meta:
        ordering = ["-created"]

    def __str__(self) -> str:
        return self.name


@receiver(pre_delete, sender=Backup)
def _keep_pinned(instance: Backup, **kwargs: Any) -> None:
    if instance.pinned:
        raise models.ProtectedError(f"{instance.name} is pinned; unpin it first", {instance})


class RestoreReport(models.Model):
    """What an operation did and found. Written before the operation begins, completed after its end."""

    class State(models.TextChoices):
        RUNNING = "running"
        FINISHED = "finished"
        INTERRUPTED = "interrupted"

    id = models.UUIDField(primary_key=True)
    operation = models.CharField(max_length=20, db_index=True)
    state = models.CharField(max_length=20, choices=State, default=State.RUNNING, db_index=True)
    verdict = models.CharField(max_length=20, blank=True, db_index=True)
    committed = models.BooleanField(default=False, help_text="whether what it did to the database is there")
    change = models.BigIntegerField(
        null=True, help_text="place among the operations that changed something and were committed"
    )
    safety_backup = models.CharField(
        max_length=CHARACTERS, blank=True, help_text="package of what was there before the change"
    )
    package = models.CharField(max_length=CHARACTERS, blank=True)
    database = models.CharField(max_length=100)
    started = models.DateTimeField(db_index=True)
    finished = models.DateTimeField(null=True)
    seconds = models.FloatField(default=0)
    account = models.CharField(max_length=150, blank=True, help_text="operating-system account")
    host = models.CharField(max_length=255, blank=True)
    process = models.BigIntegerField(default=0)
    options = models.JSONField(default=dict)
    steps = models.JSONField(default=list)
    files = models.JSONField(default=dict)
    error = models.TextField(blank=True)

    class Meta:
        ordering = ["-started"]
        verbose_name = "report"

    def __str__(self) -> str:
        return f"{self.operation} of {self.started:%Y-%m-%d %H:%M:%S} UTC"


class ModelReport(models.Model):
    """The row counts of one model in a report."""

    report = models.ForeignKey(RestoreReport, models.CASCADE, related_name="models")
    model = models.CharField(max_length=200)
    package = models.BigIntegerField()
    before = models.BigIntegerField()
    created = models.BigIntegerField()
    updated = models.BigIntegerField()
    unchanged = models.BigIntegerField()
    deleted = models.BigIntegerField()
    after = models.BigIntegerField()
    proved = models.BooleanField()

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return self.model

    @property
    def counts(self) -> tuple[int, ...]:
        """The counts in the order of the report's columns."""
        return (
            self.package,
            self.before,
            self.created,
            self.updated,
            self.unchanged,
            self.deleted,
            self.after,
        )


class ReportFinding(models.Model):
    """One finding of a report. Values are JSON as text, so that anything can be shown, cut where it is very long."""

    report = models.ForeignKey(RestoreReport, models.CASCADE, related_name="findings")
    severity = models.CharField(max_length=10, db_index=True)
    code = models.CharField(max_length=50, db_index=True)
    model = models.CharField(max_length=200, blank=True)
    identity = models.TextField(blank=True)
    field = models.CharField(max_length=200, blank=True)
    expected = models.TextField(blank=True)
    found = models.TextField(blank=True)
    message = models.TextField()

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.severity} {self.code}"
