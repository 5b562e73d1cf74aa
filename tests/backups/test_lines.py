"""Lines that a database has written, and rows that were loaded many at a time, are those of the slow way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import orjson
import pytest
from django.apps import apps
from django.contrib.auth import get_user_model
from django.db import connection
from django.utils import timezone

from backups import databases
from backups.databases import base
from backups.databases.text import NoText, text_of
from backups.records import coverage
from backups.records import rows as rows_module
from backups.records.digest import sum_of
from backups.records.pages import Meant
from backups.records.parameters import LineParser
from backups.records.parsing import Lines, Parsed, moment
from backups.records.record import parse
from backups.records.rows import ODD_PAGES, KeyCache, RowReader, RowWriter
from backups.records.splitting import NULLS
from backups.records.table import Table
from documents.models import Document, DocumentType, DocumentVersion
from tests import oracle
from tests.backups.conftest import TRAIL, recreate_without_constraints
from tests.engines import ENGINES
from tests.systems import System

AWKWARD = "tests.awkward"
TEXTS = [
    'quotes " and \' and \\ and \\" and \\\\',
    "line feed\nreturn\rtab\tbackspace\bform feed\f",
    "vertical tab\v",
    "C:\\vault \\v \\N \\x01 \\u0001 %s %% {} ${}",
    *(f"control {chr(code)} character" for code in range(1, 32)),
    "\x7f\x80\x9f\u2028\ufeff",
    "\x7f\x7fJSON\x7f\x7f",
    "Prüfung 😀 品質",
    ',"refs":{"author":1}',
    '"fields":{}',
    "\\N",
    "null",
    "",
    " ",
]


def read_both_ways(table: Table) -> Iterator[tuple[object, object]]:
    """Yield lines, then content, of all rows of a table: as the database writes them, and one by one."""
    reader = RowReader(table, "default")
    pages = list(reader.pages())
    records = list(reader.records())
    lines = [record.line(table.label) for record in records]
    yield [line for page in pages for line in page.lines], lines
    contents = [table.content(record) for record in records]
    yield sum(page.content for page in pages), sum_of(contents)


def is_written_by_database(table: Table) -> bool:
    """Whether the database writes cells for all rows of a table, of which none is left to the slow way."""
    reader = RowReader(table, "default")
    if reader.format.query is None:
        return False
    finish = reader.format.finisher(is_digested=True)
    return all(finish(page) is not None for page in reader.database.cells(reader.format.query, None))


@pytest.fixture(params=ENGINES)
def awkward(request: pytest.FixtureRequest, new_system: Callable[..., System]) -> Iterator[System]:
    with new_system(request.param, AWKWARD).active() as system:
        from tests.awkward import rows

        rows.populate(request.param)
        yield system


def add_documents(texts: list[str]) -> None:
    kind = DocumentType.objects.create(code="T", name="T")
    author = get_user_model().objects.order_by("pk").first()
    documents = []
    for number, text in enumerate(texts):
        moment = timezone.now().replace(microsecond=[0, 1, 500_000][number % 3])
        metadata: Any = [{}, {"z": [text], "a": {"ü": 1e22, "d": None}}, {"null": "null"}, [text], [1.0, 1, True]][
            number % 5
        ]
        documents.append(
            Document(
                number=f"T-{number}",
                title=text,
                document_type=kind,
                author=author,
                metadata=metadata,
                created=moment,
                effective_date=moment.date() if number % 2 else None,
            )
        )
    Document.objects.bulk_create(documents)
    first, second = Document.objects.filter(document_type=kind)[:2]
    Document.objects.filter(pk=second.pk).update(supersedes=first)


@pytest.mark.parametrize("rows", [2, base.PAGE_ROWS])
def test_a_database_writes_the_lines_that_python_would(
    awkward: System, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    assert awkward.run("seed_demo").code == 0
    assert is_written_by_database(Table(Document))  # before there is JSON that only Python can write
    add_documents([text for text in TEXTS if "\v" not in text and "control" not in text])
    monkeypatch.setattr(base, "PAGE_ROWS", rows)
    by_database = set()
    for model in coverage.of_database("default").models:
        table = Table(model)
        for found, expected in read_both_ways(table):
            assert found == expected, table
        if is_written_by_database(table) and Table(model).columns:
            by_database.add(table.label)
    assert by_database >= {
        "awkward.nullable",
        "core.user",
        "documents.document_reviewers",
        "documents.documentversion",
        "workflows.documentworkflow",
        "workflows.workflowtransition",
    }


def test_identities_that_are_kept_in_memory_are_those_that_are_joined(
    awkward: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert awkward.run("seed_demo").code == 0
    add_documents(["a", 'b "quoted" \\', "c"])
    Document.objects.filter(number="T-2").update(number='T-2 "品" \\ %s')
    Document.objects.filter(number="T-1").update(supersedes=Document.objects.get(title="c"))
    in_memory = set()
    for large in (False, True):
        monkeypatch.setattr(RowReader, "_is_large", large)
        for model in coverage.of_database("default").models:
            table = Table(model)
            for found, expected in read_both_ways(table):
                assert found == expected, table
            form = RowReader(table, "default").format._form
            if form and any(isinstance(part, Meant) for part in form.fields):
                assert large
                in_memory.add(table.label)
    assert in_memory >= {"documents.document", "documents.documentversion", "workflows.workflowtransition"}
    assert is_written_by_database(Table(DocumentVersion))


def test_only_small_tables_are_kept_in_memory(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    assert system.run("seed_demo").code == 0
    users, documents = get_user_model().objects.count(), Document.objects.count()
    assert min(documents, users) > 0
    monkeypatch.setattr(rows_module, "FEW_ROWS", documents - 1)
    assert KeyCache("default").few(Document) is None
    assert RowReader(Table(Document), "default")._is_large
    monkeypatch.setattr(rows_module, "FEW_ROWS", users - 1)
    assert KeyCache("default").few(get_user_model()) is None
    monkeypatch.setattr(rows_module, "FEW_ROWS", documents)
    assert not RowReader(Table(Document), "default")._is_large
    known = {b"%d" % pk: orjson.dumps([number]) for pk, number in Document.objects.values_list("pk", "number")}
    assert KeyCache("default").few(Document) == known | dict.fromkeys(NULLS, b"null")


def test_keys_that_are_large_are_not_kept_in_memory(lite: System) -> None:
    add_documents(["a", "b"])
    assert KeyCache("default").few(Document)
    Document.objects.filter(title="a").update(number="x" * (base.MOST_BYTES + 1))
    assert KeyCache("default").few(Document) is None


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE awkward_onekey SET name = CAST(x'41C328' AS TEXT) WHERE id = (SELECT max(id) FROM awkward_onekey)",
        "INSERT INTO awkward_onekey SELECT * FROM awkward_onekey WHERE id = 1",
        "INSERT INTO awkward_onekey (id, name) VALUES (1.5, 'one and a half')",
    ],
)
def test_odd_keys_are_not_kept_in_memory(
    new_system: Callable[..., System], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(RowReader, "_is_large", True)
    with new_system("sqlite", AWKWARD).active(), connection.cursor() as cursor:
        model = apps.get_model("awkward.onekey")
        recreate_without_constraints(model)
        first = model._base_manager.create(id=1, name="one")
        model._base_manager.create(id=2, name="two")
        apps.get_model("awkward.dangling")._base_manager.create(name="leads to one", to=first)
        assert KeyCache("default").few(model)
        cursor.execute(change)
        found = KeyCache("default").few(model)
        assert found is None or b"1.5" in found
        table = Table(apps.get_model("awkward.dangling"))
        assert RowReader(table, "default").format.query is not None


def test_a_key_of_nothing_but_nulls_is_none_in_memory_either(
    new_system: Callable[..., System], monkeypatch: pytest.MonkeyPatch
) -> None:
    with new_system("sqlite", AWKWARD).active(), connection.cursor() as cursor:
        model, referring = apps.get_model("awkward.onekey"), apps.get_model("awkward.dangling")
        recreate_without_constraints(model)
        for number, name in enumerate(["one", None, "three"], start=1):
            cursor.execute("INSERT INTO awkward_onekey (id, name) VALUES (%s, %s)", [number, name])
            referring._base_manager.create(name=f"leads to {name}", to_id=number)
        lines = []
        for large in (False, True):
            monkeypatch.setattr(RowReader, "_is_large", large)
            for found, expected in read_both_ways(Table(referring)):
                assert found == expected
                lines.append(found)
        assert lines[:2] == lines[2:]


def test_bytes_in_a_column_for_text_are_not_made_text(new_system: Callable[..., System]) -> None:
    with new_system("mariadb", AWKWARD).active() as active, connection.cursor() as cursor:
        table = Table(apps.get_model("awkward.nullable"))
        cursor.execute("INSERT INTO awkward_nullable (name, text) VALUES ('a', 'text')")
        assert is_written_by_database(table)
        cursor.execute("ALTER TABLE awkward_nullable MODIFY text longblob")
        assert is_written_by_database(table)
        (page,) = RowReader(table, "default").pages()
        assert b'"text":"text"' in page.block
        cursor.execute("UPDATE awkward_nullable SET text = X'FF'")
        assert not is_written_by_database(table)
        done = active.run("create_backup")
        assert (done.code, list(active.packages.glob("*.zip"))) == (1, [])
        assert "awkward.nullable" in done.err


def test_no_more_keys_are_kept_than_there_may_be(lite: System, monkeypatch: pytest.MonkeyPatch) -> None:
    add_documents(["a", "b", "c"])
    keys = KeyCache("default")
    first = keys.few(Document)
    assert keys.few(Document) is first
    monkeypatch.setattr(KeyCache, "LIMIT", 2)
    assert keys.few(DocumentType)
    assert keys.few(Document) == first
    assert keys.few(Document) is not first


def test_sqlite_without_its_functions_for_json_is_read_row_by_row(
    lite: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_documents(["a", "b"])
    assert RowReader(Table(Document), "default").format.query is not None
    monkeypatch.setattr(connection.features, "supports_json_field", False)
    assert RowReader(Table(Document), "default").format.query is None
    for found, expected in read_both_ways(Table(Document)):
        assert found == expected


def test_a_reference_to_no_row_is_no_identity_in_memory_either(lite: System, monkeypatch: pytest.MonkeyPatch) -> None:
    add_documents(["a", "b", "c"])
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA foreign_keys = OFF")
        cursor.execute("UPDATE documents_document SET author_id = 12345 WHERE title = 'b'")
        cursor.execute("UPDATE documents_document SET supersedes_id = 54321 WHERE title = 'c'")
    monkeypatch.setattr(RowReader, "_is_large", True)
    for found, expected in read_both_ways(Table(Document)):
        assert found == expected
    assert not is_written_by_database(Table(Document))


@pytest.mark.parametrize("rows", [2, base.PAGE_ROWS])
def test_odd_rows_are_read_one_by_one_wherever_they_are(
    system: System, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    assert len(TEXTS) > ODD_PAGES * 2
    add_documents(TEXTS)
    monkeypatch.setattr(base, "PAGE_ROWS", rows)
    for found, expected in read_both_ways(Table(Document)):
        assert found == expected
    assert Document.objects.count() == len(TEXTS)


@pytest.mark.parametrize("name", ["postgresql", "mariadb"])
def test_what_is_no_integer_is_not_written_as_one(new_system: Callable[..., System], name: str) -> None:
    texts = ["007", "abc", "1,2", "-", "-0", "00", "1-1", "", " 5", "null", "true", "1.5", '1,"x":2']
    with new_system(name, AWKWARD).active(), connection.cursor() as cursor:
        kind = "MODIFY number varchar(20)" if name == "mariadb" else "ALTER number TYPE varchar(20)"
        cursor.execute(f"ALTER TABLE awkward_nullable {kind}")
        table = Table(apps.get_model("awkward.nullable"))
        for text in texts:
            cursor.execute("DELETE FROM awkward_nullable")
            for key, value in enumerate([text, None, "0", "-10"], start=1):
                cursor.execute("INSERT INTO awkward_nullable (id, name, number) VALUES (%s, %s, %s)", [key, key, value])
            for found, expected in read_both_ways(table):
                assert found == expected, text


def test_json_null_is_told_from_null(awkward: System) -> None:
    table = Table(apps.get_model("awkward.value"))
    (found, expected), _ = read_both_ways(table)
    assert found == expected
    assert any(b'"json_null":[' in line for line in found)


def test_texts_of_every_kind_come_back_through_a_bulk_load(system: System) -> None:
    add_documents([text if text.strip() else f"{number}" for number, text in enumerate(TEXTS * 4)])
    assert system.run("create_backup").code == 0
    before = oracle.rows(ignore=TRAIL)
    assert system.run("reinit_system", "--no-input").code == 0
    (package,) = system.packages.glob("backup-*.zip")
    restored = system.run("restore_backup", str(package), "--no-input")
    assert restored.code == 0, restored.out + restored.err
    assert oracle.differences(before, oracle.rows(ignore=TRAIL)) == []


def test_a_parser_of_many_lines_gives_the_parameters_of_each(awkward: System) -> None:
    add_documents(TEXTS)
    parsed, written = set(), set()
    for model in coverage.of_database("default").models:
        table = Table(model)
        reader, writer = RowReader(table, "default"), RowWriter(table, "default")
        keys = {one.name: None for one in table.references}
        parser, as_text = (LineParser(table, writer, keys, is_text=is_text) for is_text in (False, True))
        for line in (one.line(table.label) for one in islice(reader.records(), 100)):
            (found,) = parser.parsed([Lines(block=line + b"\n", after=None)])
            if found is None:
                continue
            rows = found.rows
            assert len(rows) == found.count == 1
            (text,) = as_text.parsed([Lines(block=line + b"\n", after=None)])
            if isinstance(text.rows, bytes):
                assert text == Parsed(text_of(rows), 1)
                written.add((table.label, b"\\" in line))
            record = parse(line, table.label)
            references = {
                one.name: record.refs.get(one.name, record.fields[one.name])
                for one in table.references
                if record.fields[one.name] is not None
            }
            expected = writer.row(record, record.pk, references)
            shown = [_as_engine_sees(value) for value in expected]
            assert [_as_engine_sees(value) for value in rows[0]] == shown, table
            parsed.add(table.label)
    assert {"documents.document", "core.user", "awkward.moment"} <= parsed
    assert {("core.user", False), ("awkward.nullable", False), ("documents.document", True)} <= written


def _as_engine_sees(value: Any) -> Any:
    if isinstance(getattr(value, "obj", value), memoryview | bytes):  # psycopg wraps what is binary
        return bytes(getattr(value, "obj", value))
    return value.isoformat() if hasattr(value, "isoformat") else value


@pytest.mark.parametrize(
    "changed",
    [
        (b'"pk":', b'"key":'),
        (b'"status":"', b'"status":3,"other":"'),
        (b'"title":', b'"titel":'),
        (b'"created":"', b'"created":"+'),
        (b'"effective_date":null', b'"effective_date":"20260101"'),
        (b'"effective_date":null', b'"effective_date":"2026-W01-1"'),
        (b'"refs":{', b'"refs":{"supersedes":1,'),
        (b'"document_type":["T"]', b'"document_type":1'),
        (b'"author":1,', b'"author":"1",'),
        (b"documents.document", b"documents.documenttype"),
    ],
)
def test_a_line_that_is_not_as_written_is_left_to_a_closer_look(lite: System, changed: tuple[bytes, bytes]) -> None:
    add_documents(["a", "b", "c"])
    table = Table(Document)
    line = next(RowReader(table, "default").records()).line(table.label)
    keys = {one.name: None for one in table.references}
    parser = LineParser(table, RowWriter(table, "default"), keys, is_text=False)
    assert next(parser.parsed([Lines(block=line + b"\n", after=None)])) is not None
    assert changed[0] in line
    assert next(parser.parsed([Lines(block=b"\n".join([line, line.replace(*changed, 1), b""]), after=None)])) is None


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-01T00:00:00,123456+00:00",
        "2026-01-01T000000.12345678+00:00",
        "20260101T00:00:00.12345678+00:00",
        "2026-01-01 00:00:00+00:00",
        "2026-01-01T00:00:00+01:00",
        "2026-02-30T00:00:00+00:00",
    ],
)
def test_a_moment_of_another_form_is_left_to_a_closer_look(text: str) -> None:
    assert moment("2026-01-01T00:00:00.123456+00:00") == "2026-01-01T00:00:00.123456+00:00"
    assert moment("2026-01-01T00:00:00+00:00") == "2026-01-01T00:00:00+00:00"
    with pytest.raises(ValueError, match=r"."):
        moment(text)


def test_text_of_rows_has_no_nul_character() -> None:
    with pytest.raises(NoText):
        text_of([["a\x00101b"]])


def test_mariadb_takes_rows_from_files_as_from_statements(new_system: Callable[..., System]) -> None:
    with new_system("mariadb").active():
        database: Any = databases.of("default")
        rows = [[number, f"{number} {text}", None] for number, text in enumerate(TEXTS * 4)]
        found = []
        for option in (True, False):
            connection.settings_dict["OPTIONS"]["local_infile"] = option
            with connection.cursor() as cursor:
                cursor.execute("CREATE TEMPORARY TABLE loaded (id INT PRIMARY KEY, text TEXT, nothing TEXT)")
                database = databases.of("default")
                assert database.takes_text is option
                database.insert("loaded", ["id", "text", "nothing"], rows)
                cursor.execute("SELECT id, text, nothing FROM loaded ORDER BY id")
                found.append(cursor.fetchall())
                cursor.execute("DROP TABLE loaded")
        connection.settings_dict["OPTIONS"]["local_infile"] = True
        assert found[0] == found[1] == tuple(map(tuple, rows))
