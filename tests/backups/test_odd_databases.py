"""Databases that hold what others would not, and readers that go away in the middle of an answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from django.apps import apps
from django.db import IntegrityError, OperationalError, connection, transaction
from django.db.models import Model
from django.dispatch import Signal

from backups import databases, pipeline
from backups.models import RestoreReport
from backups.package.reader import PackageReader
from backups.records.parameters import LineParser
from backups.records.parsing import Lines
from backups.records.rows import RowReader, RowWriter
from backups.records.table import Table
from backups.reporting import NoProgress, Verdict
from backups.services import load
from backups.services.create import CreateOptions, create_backup
from backups.services.validate import ValidateOptions, validate_restore
from backups.signals import backup_created
from core.models import User
from documents.models import Document, DocumentType, DocumentVersion
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


@pytest.fixture
def awkward(new_system: Callable[..., System]) -> Iterator[System]:
    with new_system("mariadb", "tests.awkward").active() as system:
        yield system


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


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("size BIGINT UNSIGNED ZEROFILL NOT NULL", {"size": 42}),
        ("size BIGINT UNSIGNED NOT NULL", {"size": 2**64 - 1}),
        ("major INT(8) UNSIGNED ZEROFILL NOT NULL", {"major": 7}),
    ],
)
def test_numbers_that_are_shown_with_zeros_come_back(
    new_system: Callable[..., System], column: str, values: dict[str, int]
) -> None:
    with new_system("mariadb").active() as system:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE documents_documentversion MODIFY {column}")
        DocumentVersion.objects.create(**(a_version() | values))
        come_back(system, DocumentVersion)


@pytest.mark.parametrize("digits", [0, 1, 3, 6])
def test_moments_of_every_precision_come_back(new_system: Callable[..., System], digits: int) -> None:
    with new_system("mariadb").active() as system:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE documents_documentversion MODIFY created DATETIME({digits}) NOT NULL")
        version = a_version()
        for number, microsecond in enumerate([0, 1, 120_000, 123_000, 123_456]):
            created = datetime(2024, 1, 2, 3, 4, 5, microsecond, UTC)
            DocumentVersion.objects.create(**(version | {"major": number, "created": created}))
        come_back(system, DocumentVersion)


def make_unmanaged(definition: str) -> type[Model]:
    """Make the table of a model that migrations know nothing of, with two rows."""
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE awkward_made_elsewhere {definition}")
        cursor.execute("INSERT INTO awkward_made_elsewhere (id, name) VALUES (1, 'a'), (2, 'b')")
    return apps.get_model("awkward.unmanaged")


def test_a_table_without_a_primary_key_comes_back(awkward: System) -> None:
    model = make_unmanaged("(id BIGINT NOT NULL UNIQUE, name VARCHAR(50) NOT NULL UNIQUE, note INT)")
    come_back(awkward, model)
    other = connection.copy()
    with databases.of("default").exclusive([model._meta.db_table]), closing(other), other.cursor() as cursor:
        cursor.execute("SET innodb_lock_wait_timeout = 1")
        for sql in (
            "INSERT INTO awkward_made_elsewhere (id, name) VALUES (3, 'late')",
            "UPDATE awkward_made_elsewhere SET note = 1",
            "DELETE FROM awkward_made_elsewhere",
        ):
            with pytest.raises(OperationalError, match="Lock wait timeout"):
                cursor.execute(sql)


@pytest.mark.parametrize("engine", ["MyISAM", "Aria", "MEMORY"])
def test_tables_that_cannot_be_rolled_back_are_left_alone(awkward: System, engine: str) -> None:
    model = make_unmanaged("(id BIGINT PRIMARY KEY, name VARCHAR(50) NOT NULL UNIQUE)")
    assert awkward.run("create_backup").code == 0
    (package,) = awkward.packages.glob("backup-*.zip")
    model._base_manager.filter(pk=1).update(name="changed")
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE awkward_made_elsewhere ENGINE={engine}")
    with nothing_changes(awkward):
        for command in (
            ["create_backup"],
            ["restore_backup", str(package), "--no-input"],
            ["restore_backup", str(package), "--no-input", "--no-safety-backup"],
            ["reinit_system", "--no-input", "--no-safety-backup"],
        ):
            refused = awkward.run(*command)
            assert refused.code == 6, refused.out + refused.err
            assert f"awkward_made_elsewhere ({engine})" in refused.err
            assert "ALTER TABLE `awkward_made_elsewhere` ENGINE=InnoDB" in refused.err
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE awkward_made_elsewhere ENGINE=InnoDB")
    assert awkward.run("restore_backup", str(package), "--mode", "replace", "--no-input").code == 0
    assert set(model._base_manager.values_list("pk", "name")) == {(1, "a"), (2, "b")}


@pytest.mark.parametrize(
    ("label", "column"),
    [
        ("documents.document", "effective_date"),  # the database writes it
        ("documents.document", "modified"),
        ("awkward.value", "day"),
        ("awkward.value", "moment"),
    ],
)
def test_what_is_no_date_is_refused_and_not_taken_for_null(awkward: System, label: str, column: str) -> None:
    a_version()
    apps.get_model("awkward.value").objects.create(name="odd")
    model = apps.get_model(label)
    with connection.cursor() as cursor:
        cursor.execute("SET sql_mode = 'ALLOW_INVALID_DATES'")
    for date in ("0000-00-00", "2024-00-15", "2024-01-00", "2024-02-31", "0000-05-05"):
        with connection.cursor() as cursor:
            cursor.execute(f"UPDATE {model._meta.db_table} SET {column} = %s", [date])
        done = awkward.run("create_backup")
        assert (done.code, list(awkward.packages.glob("*.zip"))) == (1, [])
        assert f"{label} [{model.objects.get().pk}] has what is no date, such as 0000-00-00, in `{column}`" in done.err
        assert "2024" not in done.err


def test_files_whose_names_differ_in_spaces_are_all_in_the_package(new_system: Callable[..., System]) -> None:
    names = ["x", "x ", " ", "X", "x\u00a0"]
    with new_system("mariadb").active() as system:
        version = a_version()
        for number, name in enumerate(["", *names]):
            DocumentVersion.objects.create(**(version | {"major": number, "file": name}))
            if name:
                system.media.mkdir(parents=True, exist_ok=True)
                (system.media / name).write_text(name)
        assert system.run("create_backup").code == 0
        (package,) = system.packages.glob("backup-*.zip")
        with PackageReader(package) as written:
            assert sorted(record.name for record in written.files()) == sorted(names)


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


def a_version() -> dict[str, Any]:
    """Return the values of a version of a document that is there."""
    author, kind = User.objects.get(username="admin"), DocumentType.objects.create(code="T", name="T")
    document = Document.objects.create(number="T-1", title="T", document_type=kind, author=author)
    return {"document": document, "major": 1, "minor": 0, "size": 0, "author": author}


def come_back(system: System, model: type[Model]) -> None:
    """Read a table as the database writes it and row by row, then back it up, delete its rows and restore them."""
    pages = list(RowReader(Table(model), "default").pages())
    records = list(RowReader(Table(model), "default").records())
    assert [line for page in pages for line in page.lines] == [
        record.line(model._meta.label_lower) for record in records
    ]
    before = list(model._base_manager.order_by("pk").values_list())
    assert system.run("create_backup").code == 0
    (package,) = system.packages.glob("backup-*.zip")
    model._base_manager.all().delete()
    restored = system.run("restore_backup", str(package), "--no-input")
    assert restored.code == 0, restored.out + restored.err
    assert list(model._base_manager.order_by("pk").values_list()) == before


@pytest.fixture(params=ENGINES)
def strangers(request: pytest.FixtureRequest, new_system: Callable[..., System]) -> Iterator[System]:
    """A system beside whose tables there are others, whose rows go, change or object when their user is deleted."""
    with new_system(request.param).active() as system, connection.cursor() as cursor:
        bob = User.objects.create(username="bob", first_name="old")
        for table, action in ACTIONS.items():
            cursor.execute(
                f"CREATE TABLE {table} (id integer PRIMARY KEY, usr bigint DEFAULT 1,"
                f" FOREIGN KEY (usr) REFERENCES core_user (id) ON DELETE {action})"
            )
            cursor.execute(f"INSERT INTO {table} VALUES (1, {bob.pk})")
        assert system.run("create_backup").code == 0
        yield system


ACTIONS = {
    "other_gone": "CASCADE",
    "other_emptied": "SET NULL",
    "other_kept": "RESTRICT",
    "other_refused": "NO ACTION",
}


def rows_of_strangers() -> list[object]:
    found = []
    with connection.cursor() as cursor:
        for table in ACTIONS:
            cursor.execute(f"SELECT usr FROM {table}")
            found += [row[0] for row in cursor.fetchall()]
    return found


@pytest.mark.parametrize("mode", ["merge", "replace"])
def test_rows_of_others_stay_as_they_are_when_what_they_refer_to_is_overwritten(strangers: System, mode: str) -> None:
    bob = User.objects.get(username="bob")
    User.objects.update(first_name="new")
    done = strangers.run("restore_backup", "latest", "--mode", mode, "--no-input")
    assert done.code == 0, done.out + done.err
    assert User.objects.get(username="bob").first_name == "old"
    assert rows_of_strangers() == [bob.pk] * len(ACTIONS)
    with connection.cursor() as cursor:  # the foreign keys do again what they did
        for table in ("other_kept", "other_refused"):
            with pytest.raises(IntegrityError), transaction.atomic():
                User.objects.filter(username="bob")._raw_delete("default")
            cursor.execute(f"DELETE FROM {table}")
    User.objects.filter(username="bob")._raw_delete("default")
    assert rows_of_strangers() == [None]


def test_nothing_is_deleted_that_others_refer_to(strangers: System) -> None:
    with connection.cursor() as cursor:
        carol = User.objects.create(username="carol")
        cursor.execute(f"UPDATE other_gone SET usr = {carol.pk}")
    with nothing_changes(strangers):
        before = rows_of_strangers()
        replaced = strangers.run("restore_backup", "latest", "--mode", "replace", "--no-input")
        assert replaced.code == 3, replaced.out + replaced.err
        assert "constraint_violated" in replaced.out
        assert "other_gone" in replaced.out
        emptied = strangers.run("reinit_system", "--no-input")
        assert emptied.code == 1, emptied.out + emptied.err
        assert "refer to rows that would be deleted" in emptied.err
        assert rows_of_strangers() == before


def test_actions_of_covered_tables_do_not_delete_what_was_not_to_be_deleted(
    new_system: Callable[..., System],
) -> None:
    with new_system("postgresql").active() as system, connection.cursor() as cursor:
        bob = User.objects.create(username="bob", first_name="old")
        bob.groups.create(name="some")
        cursor.execute(
            "SELECT conname FROM pg_constraint WHERE contype = 'f' AND conrelid = 'core_user_groups'::regclass"
            " AND confrelid = 'core_user'::regclass"
        )
        (name,) = cursor.fetchone()
        cursor.execute(
            f"ALTER TABLE core_user_groups DROP CONSTRAINT {name}, ADD CONSTRAINT {name} FOREIGN KEY (user_id)"
            " REFERENCES core_user ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED"
        )
        assert system.run("create_backup").code == 0
        bob.first_name = "new"
        bob.save()
        done = system.run("restore_backup", "latest", "--no-input")
        assert done.code == 0, done.out + done.err
        assert bob.groups.get().name == "some"


def test_indexes_of_partitioned_tables_are_left_alone(
    new_system: Callable[..., System], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "BULK_ROWS", 10)
    with new_system("postgresql", "tests.awkward").active() as system, connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE awkward_made_elsewhere (id bigint PRIMARY KEY, name varchar(50) NOT NULL)"
            " PARTITION BY RANGE (id)"
        )
        cursor.execute("CREATE TABLE a_part PARTITION OF awkward_made_elsewhere FOR VALUES FROM (0) TO (1000)")
        cursor.execute("CREATE INDEX by_name ON awkward_made_elsewhere (name)")
        cursor.execute("INSERT INTO awkward_made_elsewhere SELECT n, n FROM generate_series(1, 20) n")
        indexes = "SELECT indexrelid::regclass::text, indisvalid FROM pg_index WHERE indrelid = %s::regclass ORDER BY 1"
        before = []
        for table in ("awkward_made_elsewhere", "a_part"):
            cursor.execute(indexes, [table])
            before.append(cursor.fetchall())
        done = system.run("create_backup")
        assert done.code == 0
        assert "a_part" not in done.out  # whose rows are those of its table
        cursor.execute("DELETE FROM awkward_made_elsewhere")
        assert system.run("restore_backup", "latest", "--no-input").code == 0
        for table, was in zip(("awkward_made_elsewhere", "a_part"), before, strict=True):
            cursor.execute(indexes, [table])
            assert cursor.fetchall() == was


@pytest.mark.parametrize("name", ["sqlite", "postgresql"])
def test_tables_that_a_model_names_in_its_own_way_are_backed_up(new_system: Callable[..., System], name: str) -> None:
    with new_system(name, "tests.elsewhere").active() as system, connection.cursor() as cursor:
        from tests.elsewhere.models import Elsewhere, InAnotherCase

        if name == "postgresql":
            cursor.execute("CREATE SCHEMA elsewhere")
            model, table, missing = Elsewhere, "elsewhere.things", "elsewhere.inanothercase"
        else:
            model, table, missing = InAnotherCase, "THINGS", "elsewhere.elsewhere"
        cursor.execute(f"CREATE TABLE {table} (id integer PRIMARY KEY, name varchar(50) NOT NULL)")
        model.objects.create(id=1, name="a")
        model.objects.create(id=2, name="b")

        made = system.run("create_backup", "--json")

        assert made.code == 0, made.err
        found = {one["model"]: one["message"] for one in json.loads(made.out)["findings"]}
        assert {label for label in found if label.startswith("elsewhere")} == {missing}
        assert "its table cannot be read" in found[missing]
        cursor.execute(f"DELETE FROM {table} WHERE id = 2")
        cursor.execute(f"UPDATE {table} SET name = 'changed'")
        restored = system.run("restore_backup", "latest", "--no-input")
        assert restored.code == 0, restored.out + restored.err
        assert list(model.objects.order_by("id").values_list()) == [(1, "a"), (2, "b")]
        assert system.run("reinit_system", "--no-input").code == 0
        assert not model.objects.exists()
        assert system.run("restore_backup", "--undo", "--no-input").code == 0
        assert list(model.objects.order_by("id").values_list()) == [(1, "a"), (2, "b")]


@pytest.mark.parametrize("kind", ["VIEW", "MATERIALIZED VIEW"])
def test_views_of_another_schema_are_left_out_as_others(new_system: Callable[..., System], kind: str) -> None:
    with new_system("postgresql", "tests.elsewhere").active() as system, connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA elsewhere")
        cursor.execute(f"CREATE {kind} elsewhere.things AS SELECT id, username AS name FROM core_user")
        made = system.run("create_backup", "--json")
        assert made.code == 0, made.err
        found = {one["model"]: one["message"] for one in json.loads(made.out)["findings"]}
        assert "a view" in found["elsewhere.elsewhere"]


@contextmanager
def connected_to(signal: Signal, receiver: Callable[..., None]) -> Iterator[None]:
    signal.connect(receiver)
    try:
        yield
    finally:
        signal.disconnect(receiver)
