"""What only PostgreSQL has comes back as it was, or is refused."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.core.management import call_command
from django.db import DataError, connection
from django.db.backends.postgresql.psycopg_any import DateRange, DateTimeTZRange, NumericRange

from backups import databases
from backups.databases import base
from backups.databases.cells import Cells, Column, Kind
from backups.records.rows import RowReader
from backups.records.table import Table
from backups.services import load
from core.models import User
from documents.models import DocumentType
from tests.backups.conftest import nothing_changes
from tests.systems import System, installed

APPS = ("django.contrib.postgres", "tests.postgresql")
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)

ROWS: list[dict[str, Any]] = [
    {"name": "nothing"},
    {"name": "empty", "numbers": [], "texts": [], "store": {}, "integers": NumericRange(empty=True)},
    {"name": "Numbers", "numbers": [1, None, -(2**63), 2**63 - 1]},
    {"name": "texts", "texts": [["a,b", '"', "\\", "{}"], ["NULL", "", "🎉", "é"]]},
    {"name": "moments", "moments": [MOMENT, MOMENT.replace(microsecond=0)]},
    {"name": "store", "store": {"a": "1", "ü => \"'": None, "": ""}},
    {"name": "ranges", "integers": NumericRange(1, 5), "decimals": NumericRange(Decimal("0.5"), None, "(]")},
    {"name": "times", "times": DateTimeTZRange(MOMENT, None), "days": DateRange(date(2026, 1, 1), date(2026, 2, 1))},
]


@pytest.fixture
def columns(new_system: Callable[..., System]) -> Iterator[tuple[System, Any]]:
    with new_system("postgresql").active() as system:
        with connection.cursor() as cursor:
            cursor.execute("CREATE EXTENSION hstore")
            cursor.execute("CREATE EXTENSION citext")
        connection.close()
        with installed(APPS):
            from tests.postgresql.models import Column

            call_command("migrate", run_syncdb=True, verbosity=0)
            for row in ROWS:
                Column.objects.create(**row)
            yield system, Column


def test_they_come_back(columns: tuple[System, Any]) -> None:
    system, column = columns
    before = list(column.objects.order_by("name").values())
    assert len(before) == len(ROWS)
    assert system.run("create_backup").code == 0
    assert system.run("reinit_system", "--no-input").code == 0
    assert not column.objects.exists()

    restored = system.run("restore_backup", "latest")

    assert restored.code == 0, restored.out + restored.err
    assert list(column.objects.order_by("name").values()) == before
    with nothing_changes(system):
        assert system.run("restore_backup", "latest").code == 0
    column.objects.filter(name="numbers").update(numbers=[1, None, -(2**63), 2**63 - 2])
    found = system.run("validate_restore", "latest")
    assert found.code == 3
    assert "numbers" in found.out


def test_the_server_asks_whether_whoever_holds_the_lock_is_there(new_system: Callable[..., System]) -> None:
    with new_system("postgresql").active(), databases.of("default").lock() as held:
        assert held
        with connection.cursor() as cursor:
            cursor.execute("SHOW tcp_keepalives_idle")
            assert cursor.fetchone() == ("60",)


@contextmanager
def restricted_role() -> Iterator[None]:
    """Work as a role that owns nothing, and from which a policy hides a row."""
    role = f"restricted_{uuid.uuid4().hex[:12]}"
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {role}")
        cursor.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
        cursor.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}")
        cursor.execute("ALTER TABLE documents_documenttype ENABLE ROW LEVEL SECURITY")
        cursor.execute("CREATE POLICY p ON documents_documenttype USING (code <> 'HIDDEN')")
        cursor.execute(f"SET ROLE {role}")
        try:
            yield
        finally:
            cursor.execute("RESET ROLE")
            cursor.execute(f"DROP OWNED BY {role}")
            cursor.execute(f"DROP ROLE {role}")


def test_rows_that_a_policy_hides_are_no_rows_to_leave_out(new_system: Callable[..., System]) -> None:
    with new_system("postgresql").active() as system:
        DocumentType.objects.create(code="HIDDEN", name="Hidden")
        assert system.run("create_backup").code == 0
        with nothing_changes(system), restricted_role():
            assert not DocumentType.objects.filter(code="HIDDEN").exists()
            for command in (
                ["create_backup"],
                ["validate_restore", "latest"],
                ["restore_backup", "latest", "--no-input"],
                ["reinit_system", "--no-input"],
            ):
                done = system.run(*command)
                assert done.code == 6, done.out + done.err
                assert 'row-level security policy for table "documents_documenttype"' in done.err
        assert system.run("create_backup").code == 0  # the owner, whom no policy binds


def test_numbers_that_are_none_come_back(new_system: Callable[..., System]) -> None:
    with new_system("postgresql", "tests.elsewhere").active() as system, connection.cursor() as cursor:
        cursor.execute("ALTER TABLE elsewhere_number ALTER wide TYPE numeric")  # of any size, and infinite
        for real, exact, wide in (("NaN", "NaN", "NaN"), ("Infinity", "0", "Infinity"), ("-0", "1", "-Infinity")):
            cursor.execute("INSERT INTO elsewhere_number (real, exact, wide) VALUES (%s, %s, %s)", [real, exact, wide])
        rows = "SELECT id, real::text, exact::text, wide::text FROM elsewhere_number ORDER BY id"
        cursor.execute(rows)
        before = cursor.fetchall()
        assert system.run("create_backup").code == 0
        for change in ("DELETE FROM elsewhere_number", "UPDATE elsewhere_number SET real = 1, exact = 1, wide = 1"):
            cursor.execute(change)
            restored = system.run("restore_backup", "latest", "--no-input")
            assert restored.code == 0, restored.out + restored.err
            cursor.execute(rows)
            assert cursor.fetchall() == before


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


@pytest.mark.parametrize("kind", ["VIEW", "MATERIALIZED VIEW"])
def test_views_of_another_schema_are_left_out_as_others(new_system: Callable[..., System], kind: str) -> None:
    with new_system("postgresql", "tests.elsewhere").active() as system, connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA elsewhere")
        cursor.execute(f"CREATE {kind} elsewhere.things AS SELECT id, username AS name FROM core_user")
        made = system.run("create_backup", "--json")
        assert made.code == 0, made.err
        found = {one["model"]: one["message"] for one in json.loads(made.out)["findings"]}
        assert "a view" in found["elsewhere.elsewhere"]


@pytest.mark.parametrize("style", ["ISO, YMD", "German, DMY"])
def test_a_session_keeps_its_own_style_of_dates(new_system: Callable[..., System], style: str) -> None:
    with new_system("postgresql").active() as system:
        assert system.run("seed_demo").code == 0
        reader = RowReader(Table(User), "default")
        lines = [record.line("core.user") for record in reader.records()]
        with connection.cursor() as cursor:
            name = connection.ops.quote_name(connection.settings_dict["NAME"])
            cursor.execute(f"ALTER DATABASE {name} SET datestyle = 'SQL'")
        connection.close()
        with connection.cursor() as cursor:
            cursor.execute(f"SET datestyle = '{style}'")
        with databases.of("default").snapshot(), connection.cursor() as cursor:
            assert [line for page in reader.pages() for line in page.lines] == lines
            cursor.execute("SHOW datestyle")
            assert cursor.fetchone() == (style,)


def test_a_copy_that_fails_on_its_way_leaves_the_transaction_as_it_was(new_system: Callable[..., System]) -> None:
    rows = 3 * base.PAGE_ROWS
    columns = [Column(Kind.INTEGER, f"1 / ({rows} - n)", null=False)]
    with new_system("postgresql").active():
        database = databases.of("default")
        with database.snapshot():
            pages = database.cells(Cells(columns, "n", f"generate_series(1, {rows}) n"), None)
            with pytest.raises(DataError, match="division by zero"):
                list(pages)
            assert [page.rows for page in database.cells(Cells(columns, "n", "generate_series(1, 7) n"), None)] == [7]
