"""Every kind of value, key and relation comes back as it was, on each engine and from each to each."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from itertools import product
from pathlib import Path

import pytest
from django.apps import apps

from backups.package.reader import PackageReader
from backups.records.record import parse
from backups.records.table import Table
from tests import oracle
from tests.backups.conftest import TRAIL, nothing_changes
from tests.engines import ENGINES
from tests.systems import System

AWKWARD = "tests.awkward"


@pytest.mark.parametrize(("source", "target"), list(product(ENGINES, ENGINES)))
def test_every_awkward_row_comes_back(new_system: Callable[..., System], source: str, target: str) -> None:
    with new_system(source, AWKWARD).active() as old:
        from tests.awkward import rows  # which must not be imported before its app is installed

        rows.populate(source, own=source == target)
        created = old.run("create_backup")
        assert created.code == 0, created.err
        (package,) = old.packages.glob("backup-*.zip")
        before, files = oracle.rows(ignore=TRAIL), oracle.files(old.media)
    with new_system(target, AWKWARD).active() as new:
        rows.make_unmanaged_table()
        restored = new.run("restore_backup", str(package))
        assert restored.code == 0, restored.out + restored.err
        assert oracle.differences(before, oracle.rows(ignore=TRAIL)) == []
        assert oracle.files(new.media) == files
        validated = new.run("validate_restore", str(package))
        assert validated.code == 0, validated.out


@pytest.mark.parametrize("source", ["postgresql", "mariadb"])
def test_what_an_engine_cannot_keep_is_refused_by_name(new_system: Callable[..., System], source: str) -> None:
    with new_system(source, AWKWARD).active() as old:
        from tests.awkward import models, rows

        rows.make_unmanaged_table()
        models.Value.objects.create(name="long", decimal=Decimal("1234567890123456789012345678.000000000001"))
        assert old.run("create_backup").code == 0
        (package,) = old.packages.glob("backup-*.zip")
    with new_system("sqlite", AWKWARD).active() as new:
        rows.make_unmanaged_table()
        with nothing_changes(new):
            restored = new.run("restore_backup", str(package))
        assert restored.code == 3
        assert 'value_differs awkward.value ["long"] decimal' in restored.out


@pytest.mark.parametrize("source", ["sqlite", "mariadb"])
def test_large_floats_in_json_stay_floats_on_postgresql(new_system: Callable[..., System], source: str) -> None:
    large = [1.2345678901234567e19, -1e16, {"deep": 1e300}]
    with new_system(source, AWKWARD).active() as old:
        from tests.awkward import models, rows

        rows.make_unmanaged_table()
        models.Value.objects.create(name="large", json=large)
        assert old.run("create_backup").code == 0
        (package,) = old.packages.glob("backup-*.zip")
    with new_system("postgresql", AWKWARD).active() as new:
        rows.make_unmanaged_table()
        assert new.run("restore_backup", str(package)).code == 0
        assert repr(models.Value.objects.get().json) == repr(large)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_a_float_that_mariadb_does_not_know_is_refused_by_name(new_system: Callable[..., System], value: str) -> None:
    with new_system("postgresql", AWKWARD).active() as old:
        from tests.awkward import models, rows

        rows.make_unmanaged_table()
        models.Value.objects.create(name="not finite", real=float(value))
        assert old.run("create_backup").code == 0
        (package,) = old.packages.glob("backup-*.zip")
    with new_system("mariadb", AWKWARD).active() as new:
        rows.make_unmanaged_table()
        with nothing_changes(new):
            restored = new.run("restore_backup", str(package))
        assert restored.code == 3
        assert 'awkward.value ["not finite"]' in restored.out


@pytest.mark.parametrize("engine", ENGINES)
def test_a_package_of_awkward_rows_is_merged_twice_and_changes_nothing(
    new_system: Callable[..., System], engine: str
) -> None:
    with new_system(engine, AWKWARD).active() as system:
        from tests.awkward import rows

        rows.populate(engine)
        assert system.run("create_backup").code == 0
        for mode in ("merge", "replace"):
            with nothing_changes(system):
                restored = system.run("restore_backup", "latest", "--mode", mode, "--no-input", "--json")
            assert restored.code == 0, restored.out
            models = json.loads(restored.out)["models"]
            assert {
                model["model"] for model in models if model["created"] + model["updated"] + model["deleted"]
            } == set()


def test_a_content_cut_out_of_a_line_is_the_content(new_system: Callable[..., System], tmp_path: Path) -> None:
    package = tmp_path / "package.zip"
    with new_system("sqlite", AWKWARD).active() as system:
        from tests.awkward import models, rows

        rows.populate("sqlite")
        models.OneKey.objects.create(name='a,"refs":{"fields":{"b')
        assert system.run("seed_demo").code == 0
        assert system.run("create_backup", "--output", str(package)).code == 0
        cut = 0
        with PackageReader(package) as reader:
            for entry in reader.manifest.models:
                table = Table(apps.get_model(entry.label))
                for line in reader.lines(entry.label):
                    record = parse(line, entry.label)
                    content = table.content_in(line, record)
                    assert content == table.content(record)
                    cut += content in line
    assert cut > 100
