"""Every kind of value, key and relation comes back as it was, on each engine and from each to each."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest

from tests import oracle
from tests.backups.conftest import TRAIL
from tests.systems import ENGINES, System

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
        assert oracle.rows(ignore=TRAIL) == before
        assert oracle.files(new.media) == files
        validated = new.run("validate_restore", str(package))
        assert validated.code == 0, validated.out
