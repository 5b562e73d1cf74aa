"""A package that lies in what it says, under hashes that fit, is refused or rolled back, and nothing has changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backups.package.manifest import ModelEntry
from tests.backups.conftest import nothing_changes
from tests.fuzz.mutations import random_lines, rewrite
from tests.systems import System

GOLDEN = Path(__file__).parent.parent / "golden" / "edms-package-1.zip"


def change(label: str, apply: Callable[[dict[str, Any]], None]) -> Callable[[str, bytes], list[bytes]]:
    """Change the first record of one model."""
    seen: list[str] = []

    def line(found: str, original: bytes) -> list[bytes]:
        if found != label or seen:
            return [original]
        seen.append(found)
        record = json.loads(original)
        apply(record)
        return [json.dumps(record, separators=(",", ":")).encode()]

    return line


def update(record: dict[str, Any], part: str, **values: Any) -> None:
    record[part] = record.get(part, {}) | values


LIES: dict[str, tuple[str, Callable[[dict[str, Any]], None], set[int]]] = {
    "another model": ("documents.document", lambda one: one.update(model="core.user"), {4}),
    "no fields": ("documents.document", lambda one: one.update(fields=None), {4}),
    "a field too few": ("documents.document", lambda one: one["fields"].pop("title"), {3, 4}),
    "a field too many": ("documents.document", lambda one: update(one, "fields", surprise=1), {3, 4}),
    "a part that nobody knows": ("documents.document", lambda one: one.update(surprise=1), {4}),
    "a list for a text": ("documents.document", lambda one: update(one, "fields", title=["x"]), {3, 4}),
    "an object for a number": ("documents.documentversion", lambda one: update(one, "fields", size={"a": 1}), {3, 4}),
    "SQL": ("core.user", lambda one: update(one, "fields", username="'; DROP TABLE core_user; --"), {3}),
    "a time that is none": ("documents.document", lambda one: update(one, "fields", created="yesterday"), {3, 4}),
    "a number beyond all": ("documents.documentversion", lambda one: update(one, "fields", size=2**70), {3, 4}),
    "NUL": ("documents.document", lambda one: update(one, "fields", title="\x00"), {0, 3, 4}),
    "a reference to nobody": ("documents.document", lambda one: update(one, "refs", author=4711), {3, 4}),
    "a reference of another type": ("documents.document", lambda one: update(one, "refs", author="x"), {3, 4}),
    "a key that does not fit": ("documents.document", lambda one: update(one, "fields", author=["nobody"]), {3, 4}),
    "a primary key of another type": ("documents.document", lambda one: one.update(pk="x"), {3, 4}),
    "a primary key that is a list": ("documents.document", lambda one: one.update(pk=[1, 2]), {3, 4}),
    "no primary key": ("documents.document", lambda one: one.pop("pk"), {4}),
    "a null that is not JSON": ("documents.document", lambda one: one.update(json_null=["title"]), {3, 4}),
    "a file elsewhere": ("documents.documentversion", lambda one: update(one, "fields", file="../../x"), {0, 3, 4}),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_refused(system: System, lie: str, tmp_path: Path) -> None:
    label, apply, codes = LIES[lie]
    package = rewrite(GOLDEN, tmp_path / "lie.zip", change(label, apply))
    with nothing_changes(system) if 0 not in codes else _anything():
        restored = system.run("restore_backup", str(package))
    assert restored.code in codes, (restored.code, restored.out[-500:], restored.err)


class _anything:  # noqa: N801
    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...


def test_a_row_that_is_there_twice_is_refused(system: System, tmp_path: Path) -> None:
    package = rewrite(
        GOLDEN, tmp_path / "twice.zip", lambda label, line: [line, line] if label == "documents.document" else [line]
    )
    with nothing_changes(system):
        assert system.run("restore_backup", str(package)).code in {3, 4}


@pytest.mark.parametrize("name", ["core.user; DROP TABLE x", "CORE.USER", "core", "../x.y", "core.üser"])
def test_a_label_that_is_none_is_refused(seeded: System, package: Path, name: str) -> None:
    def entry(one: ModelEntry) -> ModelEntry:
        return replace(one, label=name) if one.label == "documents.document" else one

    target = package.with_name("label.zip")
    rewrite(package, target, lambda label, line: [line], entry)
    with nothing_changes(seeded):
        assert seeded.run("restore_backup", str(target)).code == 4


@pytest.mark.parametrize("seed", [*range(10), 21, 58])  # the last two have found something once
def test_random_lies_end_in_a_refusal_or_a_proof(new_system: Callable[..., System], seed: int, tmp_path: Path) -> None:
    with new_system("sqlite").active() as system:
        package = rewrite(GOLDEN, tmp_path / "lies.zip", random_lines(seed))
        restored = system.run("restore_backup", str(package))
        assert restored.code in {0, 3, 4}, restored.err
        if restored.code == 0:
            assert system.run("validate_restore", str(package)).code == 0
