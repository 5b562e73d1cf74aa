from __future__ import annotations

import hashlib
import json
from datetime import UTC
from typing import ClassVar, Self

from django.contrib.auth.models import AbstractUser, UserManager
from django.contrib.contenttypes.fields import GenericForeignKey
from django.contrib.contenttypes.models import ContentType
from django.db import models
from django.utils import timezone

from core.append_only import AppendOnlyModel
from core.natural_keys import NaturalKeyModel


class User(NaturalKeyModel, AbstractUser):
    employee_id = models.CharField(max_length=32, null=True, blank=True, unique=True)
    department = models.CharField(max_length=100, blank=True)
    job_title = models.CharField(max_length=100, blank=True)
    manager = models.ForeignKey("self", models.SET_NULL, null=True, blank=True, related_name="reports")

    objects: ClassVar[UserManager[Self]] = UserManager()  # type: ignore[assignment]

    natural_key_fields = ("username",)

    class Meta(AbstractUser.Meta):
        ordering = ["username"]


class AuditEvent(AppendOnlyModel):
    """One thing that happened, chained to what happened before it.

    Events form a directed acyclic graph: usually a chain, and two chains joined by a later event where a restored
    trail met the one that the system had begun since. ``core.audit`` writes and verifies it.
    """

    hash = models.CharField(max_length=64, unique=True)
    previous = models.JSONField("follows", default=list, help_text="Hashes of the events that this one follows.")
    time = models.DateTimeField(default=timezone.now)
    actor = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    actor_name = models.CharField(max_length=150)
    action = models.CharField(max_length=64, db_index=True)
    content_type = models.ForeignKey(ContentType, models.PROTECT, null=True, blank=True, related_name="+")
    object_id = models.CharField(max_length=64, blank=True)
    target = GenericForeignKey("content_type", "object_id")
    object_type = models.CharField(max_length=100, blank=True)
    object_key = models.JSONField(default=list, blank=True)
    details = models.JSONField(default=dict, blank=True)

    natural_key_fields = ("hash",)

    class Meta:
        ordering = ["-time", "-id"]
        indexes = [
            models.Index(fields=["time", "id"], name="auditevent_time"),
            models.Index(fields=["content_type", "object_id"], name="auditevent_target"),
        ]

    def __str__(self) -> str:
        return f"{self.time.astimezone(UTC):%Y-%m-%d %H:%M:%S} {self.actor_name} {self.action}"

    def digest(self) -> str:
        """Return the SHA-256 of everything but primary keys, so that it is the same in every database."""
        content = {
            "action": self.action,
            "actor": self.actor_name,
            "details": self.details,
            "object_key": self.object_key,
            "object_type": self.object_type,
            "previous": self.previous,
            "time": self.time.astimezone(UTC).isoformat(timespec="microseconds"),
        }
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()
