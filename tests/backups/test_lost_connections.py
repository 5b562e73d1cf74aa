"""Readers and databases that go away in the middle, or at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from django.db import connection
from django.dispatch import Signal

from backups import pipeline
from backups.models import RestoreReport
from backups.reporting import NoProgress, Verdict
from backups.services.create import CreateOptions, create_backup
from backups.services.validate import ValidateOptions, validate_restore
from backups.signals import backup_created
from documents.models import DocumentType
from tests.backups.conftest import nothing_changes
from tests.engines import ENGINES
from tests.systems import System

ROWS = 20_000
"""More than the buffers between a server and its client hold."""


class Impatient(NoProgress):
    """Goes away after some pages of the large table."""

    def __init__(self, pages: int, error: type[BaseException]) -> None:
        self.left = pages
        self.error = error

    def start(self, phase: str, total: int | None = None, unit: str = "rows") -> None:
        self.is_large = total is not None and total >= ROWS

    def advance(self, amount: int) -> None:
        self.left -= self.is_large
        if self.left < 0:
            raise self.error("gone")


@pytest.mark.parametrize("name", ENGINES)
def test_an_operation_that_fails_while_it_reads_ends_at_once(
    new_system: Callable[..., System], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(pipeline, "FEW", 10)
    with new_system(name).active() as system:
        DocumentType.objects.bulk_create(
            [DocumentType(code=f"D{number}", name="Large", description="x" * 200) for number in range(ROWS)],
            batch_size=1000,
        )
        assert system.run("create_backup").code == 0
        with nothing_changes(system):
            for pages in (3, 20):  # before and after there is a second process
                for error in (OSError, KeyboardInterrupt):
                    with pytest.raises(error):
                        create_backup(CreateOptions(), Impatient(pages, error))
                    assert RestoreReport.objects.latest("started").verdict == Verdict.FAILED
                    with pytest.raises(error):
                        validate_restore(ValidateOptions(package="latest"), Impatient(pages, error))
        assert system.run("create_backup").code == 0


@pytest.mark.parametrize("name", ["postgresql", "mariadb"])
def test_a_database_that_comes_back_gets_the_report_of_what_was_done(
    new_system: Callable[..., System], name: str
) -> None:
    with new_system(name).active() as system:

        def lose(**_: object) -> None:
            connection.connection.close()

        with connected_to(backup_created, lose):
            assert system.run("create_backup").code == 0
        report = RestoreReport.objects.get()
        assert (report.state, report.verdict) == (RestoreReport.State.FINISHED, Verdict.PROVED)
        assert report.models.exists()


@pytest.mark.parametrize("name", ["postgresql", "mariadb"])
def test_what_is_done_and_could_not_be_reported_is_said(new_system: Callable[..., System], name: str) -> None:
    with new_system(name).active() as system:
        settings = connection.settings_dict
        port = settings["PORT"]

        def lose(**_: object) -> None:
            connection.connection.close()
            settings["PORT"] = 1

        with connected_to(backup_created, lose):
            done = system.run("create_backup")
        settings["PORT"] = port
        connection.close()
        assert done.code == 1
        (made,) = system.packages.glob("backup-*")
        assert f"the create of {made.name} is done, and its verdict is proved; but the database has gone" in done.err
        assert system.run("create_backup").code == 0
        assert [report.state for report in RestoreReport.objects.order_by("started")] == ["interrupted", "finished"]


@contextmanager
def connected_to(signal: Signal, receiver: Callable[..., None]) -> Iterator[None]:
    signal.connect(receiver)
    try:
        yield
    finally:
        signal.disconnect(receiver)
