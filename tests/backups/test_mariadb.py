"""What only MariaDB has comes back as it was, or is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest
from django.apps import apps
from django.db import OperationalError, connection
from django.db.models import Model

from backups import databases
from backups.package.reader import PackageReader
from backups.records.rows import RowReader
from backups.records.table import Table
from core.models import User
from documents.models import Document, DocumentType, DocumentVersion
from tests.backups.conftest import nothing_changes
from tests.systems import System


@pytest.fixture
def awkward(new_system: Callable[..., System]) -> Iterator[System]:
    with new_system("mariadb", "tests.awkward").active() as system:
        yield system


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


def test_a_table_without_a_primary_key_comes_back(awkward: System) -> None:
    model = make_unmanaged("(id BIGINT NOT NULL UNIQUE, name VARCHAR(50) NOT NULL UNIQUE, note INT)")
    come_back(awkward, model)
    with databases.of("default").exclusive([model._meta.db_table]):
        assert_writers_wait(
            "INSERT INTO awkward_made_elsewhere (id, name) VALUES (3, 'late')",
            "UPDATE awkward_made_elsewhere SET note = 1",
            "DELETE FROM awkward_made_elsewhere",
        )


def test_a_view_is_counted_as_tables_are(new_system: Callable[..., System]) -> None:
    with new_system("mariadb").active(), connection.cursor() as cursor:
        cursor.execute("CREATE VIEW people AS SELECT * FROM core_user")
        database = databases.of("default")
        with database.exclusive(["core_user"]):
            User.objects.create(username="one more")
            assert database.count("people") == database.count("core_user") == User.objects.count() > 0


def test_a_count_whose_transaction_is_rolled_back_is_not_made_in_another_one(
    new_system: Callable[..., System], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [OperationalError(1213, "Deadlock found"), 1]

    def answer(*_: Any) -> Any:
        if isinstance(found := answers.pop(0), Exception):
            raise found
        return found

    with new_system("mariadb").active():
        database = databases.of("default")
        monkeypatch.setattr(database, "_value", answer)
        with pytest.raises(OperationalError, match="Deadlock"):
            database.count("core_user")


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


def test_a_connection_is_opened_for_pages(new_system: Callable[..., System]) -> None:
    with new_system("mariadb").active():
        connection.close()
        assert sum(page.rows for page in RowReader(Table(DocumentType), "default").pages()) == 6


def test_writers_are_kept_out(new_system: Callable[..., System]) -> None:
    with new_system("mariadb").active() as system:
        system.run("seed_demo")
        with databases.of("default").exclusive(["auth_group", "documents_document"]):
            assert_writers_wait(
                "INSERT INTO auth_group (name) VALUES ('late')",
                "UPDATE documents_document SET title = 'late'",
                "DELETE FROM documents_document",
            )


def assert_writers_wait(*statements: str) -> None:
    with closing(connection.copy()) as other, other.cursor() as cursor:
        cursor.execute("SET innodb_lock_wait_timeout = 1")
        for sql in statements:
            with pytest.raises(OperationalError, match="Lock wait timeout"):
                cursor.execute(sql)


def make_unmanaged(definition: str) -> type[Model]:
    """Make the table of a model that migrations know nothing of, with two rows."""
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE awkward_made_elsewhere {definition}")
        cursor.execute("INSERT INTO awkward_made_elsewhere (id, name) VALUES (1, 'a'), (2, 'b')")
    return apps.get_model("awkward.unmanaged")


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


@pytest.mark.parametrize("column", ["flag bit(1)", "flag varbinary(5)", "flag tinyint"])
def test_text_of_several_character_sets_is_written_as_it_is(awkward: System, column: str) -> None:
    nullable = apps.get_model("awkward.nullable")
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE awkward_nullable MODIFY {column}, MODIFY text text CHARACTER SET latin1")
        cursor.execute("ALTER TABLE awkward_nullable MODIFY name varchar(50) CHARACTER SET latin2")
        cursor.execute("ALTER TABLE awkward_onekey CONVERT TO CHARACTER SET utf16")
    one = apps.get_model("awkward.onekey").objects.create(name="Ω")
    nullable.objects.create(name="ő", text="ü", one=one)
    reader = RowReader(Table(nullable), "default")
    (page,) = reader.pages()
    (record,) = reader.records()
    assert page.lines == [record.line("awkward.nullable")]
    assert all(text in page.lines[0].decode() for text in "őüΩ")
