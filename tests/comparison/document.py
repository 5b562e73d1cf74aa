"""Writes ``docs/fidelity.md``: what comes back, from every engine on every engine, and from Django's own fixtures.

    python -m tests.comparison --output docs/fidelity.md

Each cell is the outcome of a run on the engines themselves; the oracle decides.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.core.management import call_command
from django.test import override_settings

from tests import oracle
from tests.engines import ENGINES
from tests.systems import Engine, System

if TYPE_CHECKING:
    from tests.comparison.cases import Case

AWKWARD = "tests.awkward"
KEPT, REFUSED, CHANGED = "kept", "refused by name", "**silently changed**"
DUMP_CRASHES, LOAD_CRASHES = "dump crashes", "load crashes"
NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "mariadb": "MariaDB"}
STYLES: dict[str, tuple[str, ...]] = {"primary-key fixture": (), "natural-key fixture": ("foreign", "primary")}


@contextmanager
def saving_only(*prefixes: str) -> Iterator[None]:
    """Leave out of packages what has not one of these prefixes."""
    labels = [model._meta.label for model in apps.get_models(include_auto_created=True) if not model._meta.proxy]
    wanted = tuple(prefix.lower() for prefix in (*prefixes, "backups."))
    excluded = [label for label in labels if not label.lower().startswith(wanted)]
    with override_settings(BACKUPS=settings.BACKUPS | {"EXCLUDE": excluded, "APPEND_ONLY": []}):
        yield


# Beside dumpdata and loaddata


def outcome_of_ours(system: System, case: Case) -> str:
    """Back a case up, restore it, and say what became of it."""
    package = system.directory / "package.zip"
    package.unlink(missing_ok=True)

    def save() -> bool:
        return system.run("create_backup", "--output", str(package)).code == 0

    def load() -> bool:
        return system.run("restore_backup", str(package), "--no-input", "--no-safety-backup").code == 0

    with saving_only(*(case.only or ("awkward.", "contenttypes."))):
        return _outcome(case, save, load)


def outcome_of_fixture(system: System, case: Case, style: tuple[str, ...]) -> str:
    """Dump a case with Django's own command, load it, and say what became of it."""
    fixture = system.directory / "fixture.json"
    options = {f"use_natural_{keys}_keys": True for keys in style}

    def save() -> bool:
        return _succeeds("dumpdata", *(case.only or ("awkward",)), output=str(fixture), verbosity=0, **options)

    return _outcome(case, save, lambda: _succeeds("loaddata", str(fixture), verbosity=0))


def _outcome(case: Case, save: Callable[[], bool], load: Callable[[], bool]) -> str:
    from tests.awkward import rows

    rows.clear()
    case.fill()
    expected = case.probe() if case.expected is None else case.expected
    if not save():
        return DUMP_CRASHES
    rows.clear()
    case.diverge()
    if not load():
        return LOAD_CRASHES
    return KEPT if case.probe() == expected else CHANGED


def _succeeds(command: str, *arguments: str, **options: Any) -> bool:
    try:
        with redirect_stderr(io.StringIO()):
            call_command(command, *arguments, stdout=io.StringIO(), stderr=io.StringIO(), **options)
    except Exception:  # noqa: BLE001  whatever it is, it is what the user would see
        return False
    return True


def beside_fixtures(systems: dict[str, System]) -> list[list[str]]:
    """Return a line for each case: its name, the outcome of both kinds of fixtures, and ours."""
    found: dict[str, list[dict[str, str]]] = {}
    for name, system in systems.items():
        with system.active(), saving_only("awkward.", "contenttypes."):
            from tests.comparison.cases import CASES

            for case in CASES:
                columns = found.setdefault(case.name, [{}, {}, {}])
                if name in case.engines:
                    for column, style in zip(columns, STYLES.values(), strict=False):
                        column[name] = outcome_of_fixture(system, case, style)
                    columns[2][name] = outcome_of_ours(system, case)
    return [[name, *map(_merged, columns)] for name, columns in found.items()]


def _merged(outcomes: dict[str, str]) -> str:
    """Write what engines have in common once."""
    if len(set(outcomes.values())) == 1:
        only = f" ({', '.join(NAMES[name] for name in outcomes)})" if len(outcomes) < len(ENGINES) else ""
        return next(iter(outcomes.values())) + only
    return "; ".join(f"{NAMES[name]}: {outcome}" for name, outcome in outcomes.items())


# From every engine on every engine


def matrix(systems: dict[str, System], pairs: list[tuple[str, str]]) -> dict[str, dict[tuple[str, str], str]]:
    """Return, for each kind of model and of value, the outcome for each pair of engines."""
    found: dict[str, dict[tuple[str, str], str]] = {}
    for source, target in pairs:
        for kind, outcome in _cycle(systems[source], systems[target], None).items():
            found.setdefault(kind, {})[source, target] = outcome
        with systems[source].active():
            from tests.awkward.rows import VALUES_OF_ENGINE
        for name in VALUES_OF_ENGINE[source]:
            outcome = _cycle(systems[source], systems[target], name)[f"value: {name}"]
            found.setdefault(f"value: {name}", {})[source, target] = outcome
    return found


def _cycle(source: System, target: System, own: str | None) -> dict[str, str]:
    """Fill one system, with all that every engine takes or one value of its own; restore on the other; compare."""
    package = source.directory / "matrix.zip"
    package.unlink(missing_ok=True)
    with source.active(), saving_only("awkward.", "contenttypes."):
        from tests.awkward import models, rows

        rows.clear()
        if own is None:
            rows.populate(source.engine, own=False)
        else:
            made = models.Value.objects.create(name=own)
            models.Value.objects.filter(pk=made.pk).update(**rows.VALUES_OF_ENGINE[source.engine][own])
        before = _kinds()
        created = source.run("create_backup", "--output", str(package))
        rows.clear()
    if created.code:
        return {kind: REFUSED if _names(kind, created.out + created.err) else "not saved" for kind in before}
    with target.active(), saving_only("awkward.", "contenttypes."):
        rows.clear()
        restored = target.run("restore_backup", str(package), "--no-input", "--no-safety-backup")
        after = _kinds()
    outcomes = {}
    for kind, expected in before.items():
        if restored.code:
            outcomes[kind] = REFUSED if _names(kind, restored.out) else "not restored"
        else:
            outcomes[kind] = KEPT if after.get(kind) == expected else CHANGED
    return outcomes


def _kinds() -> dict[str, Any]:
    """Return what the awkward tables say: by model, and of the model with every kind of column by row."""
    found: dict[str, Any] = {}
    for label, rows in oracle.rows().items():
        if label == "awkward.value":
            found |= {f"value: {dict(row)['name'][1:-1]}": row for row in rows}
        elif label.startswith("awkward."):
            model = apps.get_model(label)
            about = "many-to-many rows of " + model._meta.label if model._meta.auto_created else model._meta.label
            found[f"model: {about.replace('awkward.', '')}"] = rows
    return found


def _names(kind: str, output: str) -> bool:
    """Return whether an error names a model or, of a value, its row."""
    what, name = kind.split(": ", 1)
    label = f'awkward.value ["{name}"]' if what == "value" else f"awkward.{name.lower()} "
    return any(line.startswith("error ") and label in line for line in output.splitlines())


# The document


def document(systems: dict[str, System]) -> str:
    pairs = list(product(systems, systems))
    found = matrix(systems, pairs)
    lines = [
        "# What comes back",
        "",
        "Made by `python -m tests.comparison --output docs/fidelity.md`: each cell is the outcome of a run on",
        "the engines themselves, compared by an oracle that shares no code with the engine. *Kept*: every value and",
        "reference is what it was. *Refused by name*: nothing was changed, and a finding names the row.",
        "",
        "## Beside `dumpdata` and `loaddata`",
        "",
        *_table(["case", *STYLES, "`backups`"], beside_fixtures(systems)),
        "",
        "## From every engine on every engine",
        "",
    ]
    headings = [f"{NAMES[source]} → {NAMES[target]}" for source, target in pairs]
    rows = [[kind, *(outcomes.get(pair, "") for pair in pairs)] for kind, outcomes in found.items()]
    return "\n".join([*lines, *_table(["kind", *headings], rows), ""])


def _table(headings: list[str], rows: list[list[str]]) -> Iterator[str]:
    for cells in (headings, ["---"] * len(headings), *rows):
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="where to write; default: stdout")
    output: Path | None = parser.parse_args().output
    with tempfile.TemporaryDirectory() as scratch:
        systems = {}
        engines = [Engine(name, Path(scratch)) for name in ENGINES]
        try:
            for engine in engines:
                system = System(engine.name, engine.fresh(AWKWARD), Path(scratch) / engine.name, (AWKWARD,))
                system.directory.mkdir()
                with system.active():
                    from tests.awkward import rows

                    rows.make_unmanaged_table()
                systems[engine.name] = system
            text = document(systems)
        finally:
            for engine in engines:
                engine.close()
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text)
