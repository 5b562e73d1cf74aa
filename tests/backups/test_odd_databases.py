"""Databases that hold what others would not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from backups import databases
from backups.databases import base
from backups.databases.cells import Cells, Column, Kind
from backups.errors import BackupError
from backups.records.jsontext import loads_many
from backups.records.parameters import LineParser
from backups.records.parsing import Lines
from backups.records.rows import RowReader, RowWriter
from backups.records.splitting import Odd, split
from backups.records.table import Table
from core.models import User
from documents.models import Document, DocumentType
from tests.backups.conftest import recreate_without_constraints
from tests.systems import System


def test_bytes_that_are_no_text_are_in_no_package(lite: System) -> None:
    DocumentType.objects.create(code="T", name="T")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE documents_documenttype SET name = CAST(x'41C328' AS TEXT) WHERE code = 'T'")
    done = lite.run("create_backup")
    assert (done.code, list(lite.packages.glob("*.zip"))) == (1, [])
    assert "documents.documenttype has bytes that are not UTF-8" in done.err


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
    found = [next(parser.parsed([Lines(block=one + b"\n", after=None)])) for one in (line, line.replace(old, new))]
    assert found[0] is not None
    assert found[1] is None


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


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("effective_date", value) for value in ("2026-02-30", "0000-00-00", "yesterday", "")),
        *(("modified", f"2026-01-01 {time}") for time in ("24:00:00", "23:59:60", "99:99:99")),
        ("modified", "2026-02-30 10:00:00.123456"),
        ("modified", "now"),
    ],
)
def test_what_is_no_date_is_refused_and_not_taken_for_null(lite: System, column: str, value: str) -> None:
    author, kind = User.objects.get(username="admin"), DocumentType.objects.create(code="T", name="T")
    document = Document.objects.create(number="T-1", title="T", document_type=kind, author=author)
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE documents_document SET {column} = %s", [value])
    done = lite.run("create_backup")
    assert (done.code, list(lite.packages.glob("*.zip"))) == (1, [])
    assert f'documents.document [{document.pk}] has something in "{column}" that its field cannot read' in done.err


def test_a_table_may_have_a_thousand_columns(lite: System) -> None:
    names = [f"c{number}" for number in range(1500)]
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE wide ({', '.join(f'{name} integer' for name in names)})")
        cursor.execute(f"INSERT INTO wide VALUES ({', '.join(map(str, range(1500)))})")
    columns = [Column(Kind.INTEGER, f"t0.{name}", null=False) for name in names]
    (page,) = databases.of("default").cells(Cells(columns, "t0.c0", "wide t0"), None)
    found, _ = split(page, [column.kind for column in columns])
    assert [column.cells for column in found] == [[b"%d" % number] for number in range(1500)]


@pytest.mark.parametrize(
    ("kind", "texts"), [(Kind.TEXT, ["a"]), (Kind.TEXT, ["a", "b", "c"]), (Kind.JSON, ["a", "b", "c", "d"])]
)
def test_large_rows_after_small_ones_make_no_large_page(lite: System, kind: Kind, texts: list[str]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE mixed (id integer PRIMARY KEY, {', '.join(texts)})")
        for rows, size in ((3110, 1), (200, 300_000 // len(texts)), (1, 10_000_000), (3000, 2)):
            marks = ", ".join(["%s"] * len(texts))
            row = [json.dumps("x" * size)] * len(texts)
            cursor.executemany(f"INSERT INTO mixed ({', '.join(texts)}) VALUES ({marks})", [row] * rows)
    kinds = [Kind.INTEGER, *[kind] * len(texts)]
    columns = [Column(of, f"t0.{name}", null=False) for of, name in zip(kinds, ["id", *texts], strict=True)]
    cells = Cells(columns, "t0.id", "mixed t0")
    database: Any = databases.of("default")
    pages = list(database.cells(cells, None))
    *whole, odd = pages
    sizes = [sum(map(len, (*page.texts, *page.numbers, *page.documents))) for page in whole]
    assert base.MOST_BYTES // 4 < max(sizes) <= 2 * base.MOST_BYTES
    with pytest.raises(Odd):
        split(odd, kinds)
    assert [key for page in whole for key in split(page, kinds)[0][0].cells] == [
        b"%d" % number for number in range(1, 3311)
    ]
    assert sum(page.rows for page in database.cells(cells, 3311)) == 3000


def test_a_primary_key_that_is_none_ends_in_an_error(lite: System) -> None:
    table = DocumentType._meta.db_table
    DocumentType.objects.create(code="T", name="T")
    recreate_without_constraints(DocumentType)
    with connection.cursor() as cursor:
        for key in (None, 1.5, "text"):
            cursor.execute(f"UPDATE {table} SET id = %s", [key])
            with pytest.raises(BackupError, match="a primary key that is no integer"):
                list(RowReader(Table(DocumentType), "default").pages())


def test_texts_that_are_json_only_together_are_no_json() -> None:
    assert loads_many([b"[1]", b'"\\u0001"', b"2"]) == [[1], "\x01", 2]
    for texts in ([b"[1", b"2]", b"3,4"], [b"[1", b"2]"], [b"1,2"], [b'1,"\\u0001",2']):
        with pytest.raises(ValueError):  # noqa: PT011 - orjson's own, or ours
            loads_many(texts)
