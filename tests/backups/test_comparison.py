"""Rows whose references have other keys than in the package are compared as fast, and as well, as all others."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models import F, Model, QuerySet

from backups.errors import PackageDamaged
from backups.records.comparison import Comparison, Side
from backups.records.pages import Page
from backups.records.record import Record
from backups.records.table import Table
from backups.records.verbatim import LinesInOrder
from documents.models import Document, DocumentType
from tests.backups.conftest import TRAIL
from tests.systems import System

Edit = Callable[[list[bytes]], list[bytes]]


def lines(**keys: int) -> list[bytes]:
    fields: list[dict[str, Any]] = [
        {"author": ["ada"], "title": "plain", "metadata": {}},
        {"author": ["ada"], "title": ',"refs":{"author":1}}', "metadata": {}},
        {"author": ["ada"], "title": "{}", "metadata": {"refs": {"author": 1}}},
    ]
    return [Record(pk, row, keys).line("documents.document") for pk, row in enumerate(fields, 1)]


def are_same(package: list[bytes], found: list[bytes], moved: dict[str, dict[int, int]] | None) -> bool:
    def expected_keys(record: Record) -> tuple[Any, dict[str, Any]]:
        raise LookupError

    compared = LinesInOrder([Page.of(package).block], Table(Document), expected_keys, moved)
    return compared.are_next(Page.of(found)) and compared.are_all


def test_references_that_have_moved_as_known_need_no_closer_look() -> None:
    package, found = lines(author=1, document_type=2), lines(author=11, document_type=2)

    assert are_same(package, found, {"author": {1: 11}})
    assert are_same(package, package, {"author": {5: 6}})
    for unknown in (None, {}, {"author": {1: 12}}, {"author": {1: 11}, "document_type": {2: 3}}):
        with pytest.raises(LookupError):
            are_same(package, found, unknown)


@pytest.mark.parametrize(
    "edit",
    [
        lambda package: [package[0][:-2], package[1].replace(b'"refs":{', b'"refs":'), package[2]],
        lambda package: [package[0][:-1] + b',{"author":1}}', *package[1:]],
        lambda package: [package[0].replace(b'{"author":1}}', b'{"author":[1]}}'), *package[1:]],
        lambda package: [package[0][:-1] + b',"keys":{"author":["x"]}}', *package[1:]],
        lambda package: [package[0] + b"}", *package[1:]],
        lambda package: [package[0].replace(b'"plain"', b'"other"'), *package[1:]],
        lambda package: [package[0].replace(b'"pk":1', b'"pk":9'), *package[1:]],
        lambda package: package[:2],
    ],
)
def test_lines_that_differ_otherwise_are_looked_at_closely(edit: Edit) -> None:
    with suppress(LookupError, PackageDamaged):  # a closer look
        assert not are_same(edit(lines(author=1)), lines(author=11), {"author": {1: 11}})


def move_keys(model: type[Model], by: int) -> None:
    with connection.constraint_checks_disabled(), transaction.atomic():
        QuerySet.update(model._base_manager.all(), id=F("id") + by)
        for relation in model._meta.related_objects:
            name = relation.field.attname
            QuerySet.update(relation.related_model._base_manager.all(), **{name: F(name) + by})


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The tables of which rows were looked at one by one."""
    labels = set()
    fill, is_same = Comparison.fill, LinesInOrder._is_same

    def filled(self: Comparison, *sides: Side) -> None:
        labels.add(self.table.label)
        fill(self, *sides)

    def was_same(self: LinesInOrder, *lines: bytes) -> bool:
        labels.add(self._table.label)
        return is_same(self, *lines)

    monkeypatch.setattr(Comparison, "fill", filled)
    monkeypatch.setattr(LinesInOrder, "_is_same", was_same)
    return labels


def test_a_validation_follows_the_rows_that_have_moved(seeded: System, looked_at: set[str]) -> None:
    seeded.run("create_backup")
    move_keys(DocumentType, 1000)

    # Its own rows are matched by identity; what refers to them need not be.
    assert (seeded.run("validate_restore", "latest").code, looked_at - TRAIL) == (0, {"documents.documenttype"})

    types = DocumentType.objects.order_by("pk")
    document = Document.objects.filter(document_type=types[0]).first()
    assert document is not None
    QuerySet.update(Document.objects.filter(pk=document.pk), document_type=types[1])
    differing = seeded.run("validate_restore", "latest")
    assert differing.code == 3
    assert f'documents.document ["{document.number}"] document_type' in differing.out


def test_a_restore_verifies_rows_whose_references_have_moved(seeded: System, looked_at: set[str]) -> None:
    seeded.run("create_backup")
    seeded.run("reinit_system", "--no-input")
    move_keys(DocumentType, 1000)

    assert seeded.run("restore_backup", "latest", "--no-input").code == 0

    assert "documents.documenttype" in looked_at
    assert "documents.document" not in looked_at
    assert min(Document.objects.values_list("document_type_id", flat=True)) > 1000
    assert seeded.run("validate_restore", "latest").code == 0
