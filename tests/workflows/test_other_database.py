from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.db import connections
from django.test.utils import CaptureQueriesContext

from backups.reporting import Report
from backups.signals import restore_finished
from core import audit
from core.models import User
from documents.models import Document
from tests.systems import System
from workflows.models import WorkflowTransition


@pytest.fixture
def other(new_system: Callable[[str], System]) -> Iterator[str]:
    """A second database beside the default one: a system to be examined, say."""
    second = new_system("sqlite").configuration
    with new_system("sqlite").active():
        connections.settings["other"] = {**connections.settings["default"], **second}
        try:
            yield "other"
        finally:
            connections["other"].close()
            del connections["other"]
            del connections.settings["other"]


def test_everything_works_without_asking_the_default_database(other: str) -> None:
    with CaptureQueriesContext(connections["default"]) as queries:
        call_command("seed_demo", database=other, scale=1000, verbosity=0)
        restore_finished.send(Report, report=Report(operation="restore"), using=other)
        check = audit.verify(other)
    assert [query["sql"] for query in queries] == []
    assert (check.problems, len(check.heads)) == ([], 1)
    assert Document.objects.using(other).count() == 125
    assert User.objects.using(other).get(username="alice").has_perm("documents.add_document")
    assert WorkflowTransition.objects.using(other).exists()
    assert not Document.objects.exists()
    assert not Group.objects.get(name="Authors").user_set.exists()
