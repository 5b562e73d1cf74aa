from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone
from model_bakery import baker

from backups.reporting import Report, Verdict
from backups.signals import backup_created, restore_finished, system_reinitialised
from core import audit
from core.append_only import AppendOnlyError
from core.models import AuditEvent, User
from documents.models import Document

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)


def alter(event: AuditEvent, column: str, value: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE core_auditevent SET {column} = %s WHERE hash = %s", [value, event.hash])


def remove(event: AuditEvent) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM core_auditevent WHERE hash = %s", [event.hash])


def branch(previous: list[str], time: datetime) -> AuditEvent:
    event = AuditEvent(previous=previous, time=time, actor_name="elsewhere", action="test.branched")
    event.hash = event.digest()
    event.save()
    return event


def test_event_names_actor_object_and_predecessor() -> None:
    user = baker.make(User, username="nina")
    document = baker.make(Document)
    first = audit.record("document.read", actor=user, target=document, details={"page": 3}, time=NOON)
    second = audit.record("document.closed", actor=user)
    assert (first.actor_name, first.object_type, first.object_key) == ("nina", "documents.document", [document.number])
    assert first.target == document
    assert first.previous == []
    assert second.previous == [first.hash]


def test_event_without_actor_names_account_and_host() -> None:
    assert audit.record("test.done").actor_name.startswith("os:")


def test_untouched_trail_is_proved() -> None:
    for number in range(5):
        last = audit.record("test.done", details={"number": number, "text": "Größe ≤ 5 µm 📄"})
    assert audit.verify() == audit.TrailCheck(events=5, heads=[last.hash], problems=[])


def test_verification_pages_through_events_of_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "PAGE", 2)
    for number in range(7):
        audit.record("test.done", time=NOON, details={"number": number})
    check = audit.verify()
    assert (check.events, len(check.heads), check.problems) == (7, 1, [])


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("action", "test.undone"),
        ("actor_name", "somebody else"),
        ("details", '{"number": 8}'),
        ("object_key", '["SOP-1999-0001"]'),
        ("object_type", "documents.documenttype"),
        ("previous", "[]"),
        ("time", "2026-05-01 12:00:00.123457"),
    ],
)
def test_altered_event_is_found(column: str, value: str) -> None:
    audit.record("test.begun", time=NOON - timedelta(hours=1))
    event = audit.record("test.done", target=baker.make(Document), details={"number": 7}, time=NOON)
    audit.record("test.ended", time=NOON + timedelta(hours=1))
    alter(event, column, value)
    problems = audit.verify().problems
    assert [(problem.code, problem.hash) for problem in problems] == [("altered", event.hash)]


def test_event_altered_with_a_fitting_hash_is_missed_by_its_successor() -> None:
    event = audit.record("test.done", time=NOON)
    audit.record("test.ended", time=NOON + timedelta(hours=1))
    forged = AuditEvent(previous=[], time=NOON, actor_name=event.actor_name, action="test.undone")
    alter(event, "action", "test.undone")
    alter(event, "hash", forged.digest())
    assert [(problem.code, problem.hash) for problem in audit.verify().problems] == [("missing", event.hash)]


def test_removed_event_is_found() -> None:
    audit.record("test.begun", time=NOON - timedelta(hours=1))
    event = audit.record("test.done", time=NOON)
    audit.record("test.ended", time=NOON + timedelta(hours=1))
    remove(event)
    assert [(problem.code, problem.hash) for problem in audit.verify().problems] == [("missing", event.hash)]


def test_trail_does_not_depend_on_primary_keys() -> None:
    events = [audit.record("test.done", target=baker.make(Document)) for _ in range(3)]
    with connection.cursor() as cursor:
        cursor.execute("UPDATE core_auditevent SET id = id + 1000, object_id = '77', actor_id = NULL")
    assert audit.verify() == audit.TrailCheck(events=3, heads=[events[-1].hash], problems=[])


def test_two_trails_are_joined_by_one_event() -> None:
    first = branch([], NOON)
    second = branch([], NOON + timedelta(hours=1))
    assert audit.verify().heads == sorted([first.hash, second.hash])
    joined = audit.join()
    assert joined is not None
    assert joined.previous == sorted([first.hash, second.hash])
    assert audit.verify() == audit.TrailCheck(events=3, heads=[joined.hash], problems=[])
    assert audit.join() is None


def test_fork_and_late_predecessor_are_no_problems() -> None:
    root = branch([], NOON)
    left = branch([root.hash], NOON + timedelta(hours=2))
    right = branch([root.hash], NOON + timedelta(hours=3))
    early = branch([right.hash], NOON + timedelta(hours=1))  # written on a host whose clock was slow
    assert audit.verify() == audit.TrailCheck(events=4, heads=sorted([left.hash, early.hash]), problems=[])


def test_events_are_never_changed_or_deleted() -> None:
    event = audit.record("test.done")
    event.action = "test.undone"
    for change in (
        event.save,
        event.delete,
        AuditEvent.objects.all().delete,
        lambda: AuditEvent.objects.update(action="test.undone"),
        lambda: AuditEvent.objects.bulk_update([event], ["action"]),
    ):
        with pytest.raises(AppendOnlyError, match=r"core\.AuditEvent"):
            change()
    assert AuditEvent.objects.get().action == "test.done"


def test_event_outlives_its_actor() -> None:
    user = baker.make(User, username="nina")
    audit.record("test.done", actor=user)
    user.delete()
    event = AuditEvent.objects.get()
    assert (event.actor, event.actor_name) == (None, "nina")
    assert audit.verify().problems == []


@pytest.mark.parametrize("signal", [backup_created, restore_finished, system_reinitialised])
def test_operations_of_the_engine_are_recorded(signal: object) -> None:
    report = Report(operation="restore", package="/var/backups/a.backup", verdict=Verdict.PROVED)
    signal.send(Report, report=report, using="default")
    event = AuditEvent.objects.get()
    assert event.action == "backups.restore"
    assert event.details["package"] == "a.backup"
    assert event.details["verdict"] == "proved"
    assert event.details["report"] == str(report.id)


def test_restored_trail_is_joined_with_the_one_begun_since() -> None:
    branch([], NOON)
    branch([], timezone.now())
    restore_finished.send(Report, report=Report(operation="restore"), using="default")
    check = audit.verify()
    assert (check.events, len(check.heads), check.problems) == (4, 1, [])


def test_command_proves_the_trail() -> None:
    audit.record("test.done")
    out = StringIO()
    call_command("verify_audit_trail", stdout=out)
    assert out.getvalue() == "1 events, 1 heads, 0 problems\n"


def test_command_names_altered_events_with_exit_code_3() -> None:
    event = audit.record("test.done")
    alter(event, "action", "test.undone")
    out = StringIO()
    with pytest.raises(CommandError, match="altered") as caught:
        call_command("verify_audit_trail", stdout=out)
    assert caught.value.returncode == 3
    assert event.hash in out.getvalue()
