"""A package of another schema is refused, or carried over as far as it fits, and every loss is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backups.package.manifest import ColumnEntry, Manifest, ModelEntry
from backups.package.reader import PackageReader
from backups.package.writer import PackageWriter, hash_stream
from documents.models import Document
from tests.backups.conftest import nothing_changes
from tests.systems import System
from workflows.models import DocumentWorkflow

DOCUMENT = "documents.document"


def rewrite(
    package: Path, columns: Callable[[ModelEntry], ModelEntry], fields: Callable[[dict[str, Any]], None]
) -> Path:
    """Write a package again as if documents had other fields, with a model that nobody knows any more."""
    target = package.with_name("other.zip")
    with PackageReader(package) as reader, target.open("w+b") as file:
        writer, models = PackageWriter(file), []
        for entry in reader.manifest.models:
            with writer.model(entry.label) as model:
                for line in reader.lines(entry.label):
                    if entry.label == DOCUMENT:
                        record = json.loads(line)
                        fields(record["fields"])
                        line = json.dumps(record, separators=(",", ":")).encode()
                    model.write(line + b"\n", 1)
            changed = columns(entry) if entry.label == DOCUMENT else entry
            models.append(replace(changed, chunks=tuple(model.chunks)))
        with writer.model("documents.stamp") as model:
            model.write(b'{"model":"documents.stamp","pk":1,"fields":{"name":"gone"}}\n', 1)
        gone = replace(models[0], label="documents.stamp", table="documents_stamp", rows=1, chunks=tuple(model.chunks))

        def files() -> Any:
            for record in reader.files():
                content = b"".join(reader.iter_file(str(record.sha256)))
                size, crc32, sha256 = hash_stream([content])
                writer.add_file(sha256, size, crc32, [content])
                yield record

        index = writer.write_file_index(files())
        parts = {
            name: getattr(reader.manifest, name)
            for name in ("created", "kind", "versions", "engine", "migrations", "excluded", "unknown_tables")
        }
        stored = replace(reader.manifest.files, index=index)
        writer.finish(Manifest.build(**parts, models=(*models, gone), files=stored, config=()))
    return target


@pytest.fixture
def other(package: Path) -> Path:
    def columns(entry: ModelEntry) -> ModelEntry:
        kept = tuple(column for column in entry.columns if column.name not in ("metadata", "review_date"))
        return replace(entry, columns=(*kept, ColumnEntry(name="colour", type="CharField", null=False)))

    def fields(values: dict[str, Any]) -> None:
        del values["metadata"], values["review_date"]
        values["colour"] = "red"

    return rewrite(package, columns, fields)


def test_every_difference_is_told(seeded: System, other: Path) -> None:
    with nothing_changes(seeded):
        refused = seeded.run("restore_backup", str(other))
    assert refused.code == 5
    for words in (
        "documents.document.colour: only in the package",
        "documents.document.metadata: only in the code",
        "documents.stamp: the package has this model, the code does not",
    ):
        assert words in refused.err


def test_what_fits_is_carried_over_and_the_rest_is_named(seeded: System, other: Path) -> None:
    titles = dict(Document.objects.values_list("number", "title"))
    seeded.run("reinit_system", "--no-input")

    restored = seeded.run("restore_backup", str(other), "--allow-schema-differences", "--json")

    report = json.loads(restored.out)
    assert (restored.code, report["verdict"]) == (0, "proved")
    found = {(one["severity"], one["code"], one["model"], one["field"]) for one in report["findings"]}
    assert {
        ("warning", "field_without_home", DOCUMENT, "colour"),
        ("warning", "model_without_home", "documents.stamp", ""),
        ("info", "field_defaulted", DOCUMENT, "metadata"),
        ("info", "field_defaulted", DOCUMENT, "review_date"),
    } <= found
    assert dict(Document.objects.values_list("number", "title")) == titles
    assert set(Document.objects.values_list("review_date", flat=True)) == {None}
    assert all(document.metadata == {} for document in Document.objects.all())
    assert DocumentWorkflow.objects.count() == 4
    assert seeded.run("validate_restore", str(other), "--allow-schema-differences").code == 0
    Document.objects.filter(number="SOP-2026-0001").update(metadata={"edited": True})
    assert seeded.run("validate_restore", str(other), "--allow-schema-differences").code == 3


def test_a_field_without_a_default_stands_in_the_way(seeded: System, package: Path) -> None:
    def columns(entry: ModelEntry) -> ModelEntry:
        return replace(entry, columns=tuple(column for column in entry.columns if column.name != "author"))

    def fields(values: dict[str, Any]) -> None:
        del values["author"]

    other = rewrite(package, columns, fields)
    seeded.run("reinit_system", "--no-input")
    with nothing_changes(seeded):
        refused = seeded.run("restore_backup", str(other), "--allow-schema-differences")
    assert refused.code == 3
    assert "field_without_default documents.document author" in refused.out


def test_quick_validation_names_the_tables_that_differ(seeded: System) -> None:
    assert seeded.run("validate_restore", "latest", "--quick").code == 0
    seeded.run("reinit_system", "--no-input")
    seeded.run("restore_backup", "latest")
    assert seeded.run("validate_restore", "latest", "--quick").code == 0
    Document.objects.filter(number="SOP-2026-0001").update(title="edited")
    differs = seeded.run("validate_restore", "latest", "--quick")
    assert differs.code == 3
    assert "error content_differs documents.document" in differs.out
    assert differs.out.count("content_differs") == 1
