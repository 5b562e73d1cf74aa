"""Neither a table nor a package is held in memory whole, however large its rows are."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from documents.models import DocumentType
from tests.benchmarks.processes import Pipeline, run
from tests.engines import ENGINES
from tests.systems import Engine, System

MIB = 1024 * 1024
ROWS = 150
MOST = 250 * MIB
"""What an operation may need; the rows in it are held several times while they are made into another form."""


@pytest.mark.parametrize("name", ENGINES)
def test_large_rows_are_held_a_few_at_a_time(
    engines: Callable[[str], Engine], new_system: Callable[..., System], name: str
) -> None:
    system = new_system(name)
    with system.active():
        for number in range(ROWS):
            DocumentType.objects.create(code=f"L{number}", name="Large", description=f"{number} Ü\n" * (MIB // 6))
    environment = {
        "DJANGO_SETTINGS_MODULE": "core.settings",
        "DATABASE_URL": engines(name).url(system.configuration),
        "MEDIA_ROOT": str(system.media),
        "BACKUPS_ROOT": str(system.packages),
    }
    for command in (
        ("create_backup",),
        ("validate_restore", "latest"),
        ("reinit_system", "--no-input"),
        ("restore_backup", "latest", "--no-input"),
    ):
        done = run(Pipeline(stages=[[sys.executable, "manage.py", *command]], environment=environment))
        assert (done.failure, command) == ("", command)
        assert done.peak < MOST, (command, done.peak // MIB)
    with system.active():
        assert DocumentType.objects.filter(name="Large").count() == ROWS
