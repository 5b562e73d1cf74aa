"""The audit trail: writing it, joining it after a restore, and proving that nothing in it was altered.

Every event names the hashes of the events it follows and is hashed itself, so that a changed or removed event no
longer agrees with what follows it. Only the newest events can vanish unnoticed: keep the hash of a head elsewhere.
"""

from __future__ import annotations

import os
import platform
import pwd
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePath
from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.db import DEFAULT_DB_ALIAS, models, transaction
from django.db.models import Q
from django.utils import timezone

from backups.signals import backup_created, operation_failed, restore_finished, system_reinitialised
from core.models import AuditEvent, User

PAGE = 500
"""Events in memory at a time. MariaDB's driver fetches a whole result, so pages are asked for one by one."""


@dataclass(frozen=True, kw_only=True)
class TrailProblem:
    """What is wrong with the event known by ``hash``; ``code`` is ``altered`` or ``missing``."""

    code: str
    hash: str
    message: str


@dataclass(frozen=True, kw_only=True)
class TrailCheck:
    """``heads`` are the hashes of the events that no other event follows: one, unless trails wait to be joined."""

    events: int
    heads: Sequence[str]
    problems: Sequence[TrailProblem]


def record(
    action: str,
    *,
    actor: User | None = None,
    target: models.Model | None = None,
    details: Mapping[str, Any] | None = None,
    time: datetime | None = None,
    using: str = DEFAULT_DB_ALIAS,
) -> AuditEvent:
    """Append an event that follows the newest one. Without an actor, it is the operating system's account.

    ``details`` hold text, integers, booleans, lists and dictionaries: databases write other numbers differently.
    """
    with transaction.atomic(using=using):
        _lock(using)
        newest = AuditEvent.objects.using(using).order_by("time", "id").last()
        event = AuditEvent(
            previous=[newest.hash] if newest else [],
            time=time or timezone.now(),
            actor=actor,
            actor_name=actor.get_username() if actor else operating_system_account(),
            action=action,
            details=dict(details or {}),
        )
        if target is not None:
            content_type = ContentType.objects.db_manager(using).get_for_model(target)
            natural_key = getattr(target, "natural_key", None)
            event.content_type = content_type
            event.object_id = str(target.pk)
            event.object_type = target._meta.label_lower
            event.object_key = list(natural_key()) if natural_key else [target.pk]
        event.hash = event.digest()
        event.save(using=using)
    return event


def join(using: str = DEFAULT_DB_ALIAS) -> AuditEvent | None:
    """Append an event that follows every head, where there is more than one."""
    with transaction.atomic(using=using):
        _lock(using)
        heads = verify(using).heads
        if len(heads) < 2:
            return None
        event = AuditEvent(
            previous=list(heads), time=timezone.now(), actor_name=operating_system_account(), action="audit.joined"
        )
        event.hash = event.digest()
        event.save(using=using)
    return event


def verify(using: str = DEFAULT_DB_ALIAS) -> TrailCheck:
    """Recompute every hash and look for every event that another one follows.

    Primary keys (actor, content type, object id) are not part of what is proved: they differ between databases.
    """
    count = 0
    heads: set[str] = set()
    followed: dict[str, str] = {}  # what was not a head when it was named, and who named it
    problems = []
    for event in _oldest_first(using):
        count += 1
        if event.digest() != event.hash:
            message = f"core.AuditEvent {event.hash} ({event}) was altered"
            problems.append(TrailProblem(code="altered", hash=event.hash, message=message))
        for name in event.previous:
            if name in heads:
                heads.remove(name)
            else:
                followed[name] = event.hash
        if event.hash not in followed:
            heads.add(event.hash)
    for name in _missing(followed, using):
        message = f"core.AuditEvent {name} is missing: {followed[name]} follows it"
        problems.append(TrailProblem(code="missing", hash=name, message=message))
    return TrailCheck(events=count, heads=sorted(heads), problems=problems)


def operating_system_account() -> str:
    """Return who runs this process on which host, such as ``os:deploy@edms1``."""
    try:
        account = pwd.getpwuid(os.getuid()).pw_name.encode(errors="backslashreplace").decode()  # LOGNAME can be set
    except KeyError:  # a container's user may have no name
        account = str(os.getuid())
    return f"os:{account}@{platform.node()}"[:150]


def connect() -> None:
    """Record what the backup engine does."""
    for signal in (backup_created, restore_finished, system_reinitialised, operation_failed):
        signal.connect(_record_operation, dispatch_uid="core.audit")
    restore_finished.connect(_join_trails, dispatch_uid="core.audit.join")


def _record_operation(*, report: Any, using: str, **kwargs: object) -> None:
    details = {
        "report": str(report.id),
        "package": PurePath(report.package).name,
        "verdict": str(report.verdict),
        "account": operating_system_account(),
    }
    record(f"backups.{report.operation}", details=details, using=using)


def _join_trails(*, using: str, **kwargs: object) -> None:
    join(using)


def _lock(using: str) -> None:
    """Let one transaction append at a time. The oldest event's row is the lock, because it is always the same."""
    AuditEvent.objects.using(using).select_for_update().order_by("time", "id").first()


def _oldest_first(using: str) -> Iterator[AuditEvent]:
    events = AuditEvent.objects.using(using).order_by("time", "id")
    page = list(events[:PAGE])
    while page:
        yield from page
        last = page[-1]
        page = list(events.filter(Q(time__gt=last.time) | Q(id__gt=last.pk), time__gte=last.time)[:PAGE])


def _missing(hashes: Mapping[str, str], using: str) -> Iterator[str]:
    names = sorted(hashes)
    for start in range(0, len(names), PAGE):
        asked = names[start : start + PAGE]
        found = set(AuditEvent.objects.using(using).filter(hash__in=asked).values_list("hash", flat=True))
        yield from (name for name in asked if name not in found)
