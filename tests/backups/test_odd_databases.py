"""Databases that hold what others would not, and readers that go away in the middle of an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from django.db import connection
from django.dispatch import Signal

from backups import pipeline
from backups.models import RestoreReport
from backups.records.parameters import LineParser
from backups.records.parsing import Lines
from backups.records.rows import RowReader, RowWriter
from backups.records.table import Table
from backups.reporting import NoProgress, Verdict
from backups.services.create import CreateOptions, create_backup
from backups.services.validate import ValidateOptions, validate_restore
from backups.signals import backup_created
from core.models import User
from documents.models import Document, DocumentType
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


@pytest.mark.parametrize(("characters", "text"), [("latin1", "Ã© Â£ é"), ("cp1251", "Рђ П"), ("utf8mb4", "🎉")])
def test_columns_of_other_character_sets_come_back(
    new_system: Callable[..., System], characters: str, text: str
) -> None:
    with new_system("mariadb").active() as old:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE documents_documenttype CONVERT TO CHARACTER SET {characters}")
        DocumentType.objects.create(code="T", name=text, description=text)
        assert old.run("create_backup").code == 0
        (package,) = old.packages.glob("backup-*.zip")
        records = list(RowReader(Table(DocumentType), "default").records())
        pages = RowReader(Table(DocumentType), "default").pages()
        assert [line for page in pages for line in page.lines] == [
            record.line("documents.documenttype") for record in records
        ]
    with new_system("mariadb").active() as new:
        assert new.run("restore_backup", str(package), "--no-input").code == 0
        assert DocumentType.objects.get(code="T").name == text


def test_bytes_that_are_no_text_are_in_no_package(lite: System) -> None:
    DocumentType.objects.create(code="T", name="T")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE documents_documenttype SET name = CAST(x'41C328' AS TEXT) WHERE code = 'T'")
    done = lite.run("create_backup")
    assert (done.code, list(lite.packages.glob("*.zip"))) == (1, [])
    assert "UTF-8" in done.err


@pytest.mark.parametrize("name", ["sqlite", "mariadb"])
@pytest.mark.parametrize("text", [" null", "null\n", "null"])
def test_json_null_is_no_null_however_it_is_written(new_system: Callable[..., System], name: str, text: str) -> None:
    with new_system(name).active():
        author, kind = User.objects.get(username="admin"), DocumentType.objects.create(code="T", name="T")
        Document.objects.create(number="T-1", title="T", document_type=kind, author=author)
        with connection.cursor() as cursor:
            cursor.execute("UPDATE documents_document SET metadata = %s", [text])
        (page,) = RowReader(Table(Document), "default").pages()
        assert b'"json_null":["metadata"]' in page.lines[0]


def test_a_connection_is_opened_for_pages(new_system: Callable[..., System]) -> None:
    with new_system("mariadb").active():
        connection.close()
        assert sum(page.rows for page in RowReader(Table(DocumentType), "default").pages()) == 6


@pytest.mark.parametrize(
    ("old", "new"), [(b'"metadata":{}', b'"metadata":null'), (b"}}", b'}},{"model":"documents.document","pk":9}')]
)
def test_lines_that_are_no_single_row_are_left_to_a_closer_look(lite: System, old: bytes, new: bytes) -> None:
    author, kind = User.objects.get(username="admin"), DocumentType.objects.create(code="T", name="T")
    Document.objects.create(number="T-1", title="T", document_type=kind, author=author)
    table = Table(Document)
    (line,) = (record.line(table.label) for record in RowReader(table, "default").records())
    parser = LineParser(table, RowWriter(table, "default"), {one.name: None for one in table.references}, is_text=False)
    assert old in line
    found = [next(parser.parsed([Lines(lines=[one], after=None)])) for one in (line, line.replace(old, new))]
    assert found[0] is not None
    assert found[1] is None


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
