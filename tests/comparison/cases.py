"""What Django's own ``dumpdata`` and ``loaddata`` change, case by case: the rows, and what must be there afterwards.

To be imported where the awkward app is installed.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import Any

from django.db import connections, transaction
from django.db.models import Value as Sql

from tests import oracle
from tests.awkward import models as m


def awkward_rows() -> Any:
    """Return what the awkward tables say, as the oracle reads them."""
    return {label: rows for label, rows in oracle.rows().items() if label.startswith("awkward.")}


@dataclass(frozen=True)
class Case:
    """``fill`` makes what is saved, ``diverge`` what is in the target, ``probe`` reads what has to come back.

    ``expected`` is the probe's result where it is not that at the source. ``only`` are the models that are saved.
    """

    name: str
    fill: Callable[[], Any]
    diverge: Callable[[], Any] = lambda: None
    probe: Callable[[], Any] = awkward_rows
    expected: Any = None
    only: tuple[str, ...] = ()
    engines: tuple[str, ...] = ("sqlite", "postgresql", "mariadb")


def _value(**columns: Any) -> Callable[[], Any]:
    """Make a row that is about these columns, and whose stamps lose nothing in a fixture."""
    stamps = dict.fromkeys(("stamped", "first"), datetime(2026, 1, 1, tzinfo=UTC))
    return lambda: m.Value.objects.filter(pk=m.Value.objects.create(name="value").pk).update(**stamps | columns)


def _moments() -> None:
    for microsecond in (123001, 123002):
        m.Moment.objects.create(at=datetime(2026, 1, 1, 12, 0, 0, microsecond, UTC))


def _code_key() -> None:
    m.TextKey.objects.create(code="child", code_key=m.CodeKey.objects.create(code="code", title="title"))


def _uuid_key() -> None:
    m.BigKey.objects.create(uuid_key=m.UuidKey.objects.create(id=uuid.UUID(int=7), name="with a UUID"))


def _twins() -> None:
    for number in (1, 2):
        m.RefersToTwin.objects.create(name=f"{number}", twin=m.Twin.objects.create(pk=number, name="x", number=number))


def _twin_numbers() -> list[Any]:
    return sorted(m.RefersToTwin.objects.values_list("name", "twin__number"))


def _ring() -> None:
    connection = connections["default"]
    with transaction.atomic(), connection.constraint_checks_disabled():
        for key, following in ((1, 2), (2, 1)):
            m.Ring.objects.create(pk=key, name=f"ring {key}", next_id=following)


def _hidden() -> None:
    m.Hidden(name="hidden", deleted=True).save()
    m.Hidden(name="visible").save()


def _tagged() -> None:
    m.Tag.objects.create(pk=1, name="tag", target=m.Tagged.objects.create(pk=1, name="tagged"))


def _tag_target() -> list[Any]:
    return [(tag.name, tag.target and tag.target.name) for tag in m.Tag.objects.all()] + _names(m.Tagged)


def _names(model: Any) -> list[str]:
    return sorted(model.objects.values_list("name", flat=True))


def _liked() -> None:
    friend = m.Friend.objects.create(pk=1, name="friend")
    for key, name in enumerate(("c", "a", "d", "b"), start=1):
        friend.liked.add(m.OneKey.objects.create(pk=key, name=name))


def _order_of_liked() -> list[str]:
    return list(m.Friend.liked.through.objects.order_by("pk").values_list("onekey__name", flat=True))


def _authors(*names: str) -> None:
    for key, name in enumerate(names, start=1):
        m.OneKey.objects.create(pk=key, name=name)


def _documents() -> None:
    _authors("alice", "bob")
    m.SeveralKeys.objects.create(pk=1, one_id=1, number=1)


def _document_authors() -> list[Any]:
    return list(m.SeveralKeys.objects.values_list("one__name", "number"))


CASES = (
    Case(
        "datetimes and times with microseconds",
        _value(moment=datetime(2026, 2, 3, 4, 5, 6, 789012, UTC), time=time(1, 2, 3, 456789)),
    ),
    Case("two unique datetimes that differ in microseconds", _moments),
    Case("JSON null in a NOT NULL column", _value(required_json=Sql(None, m.models.JSONField()))),
    Case("JSON null in a nullable column", _value(json=Sql(None, m.models.JSONField()))),
    Case("large floats in JSON", _value(json=[1.2345678901234567e19])),
    Case("lone surrogates in JSON text", _value(json={"lone": "\ud800"}), engines=("sqlite",)),
    Case("fields with `serialize=False`", _value(secret="kept")),
    Case("rows that the default manager hides", _hidden),
    Case("natural key that is the primary key", _code_key),
    Case("UUID primary key beside another natural key", _uuid_key),
    Case("two rows with the same natural key", _twins, probe=_twin_numbers),
    Case("required self reference in a cycle", _ring),
    Case(
        "foreign key to an instance that is falsy",
        lambda: m.RefersToFalsy.objects.create(to=m.Falsy.objects.create(name="falsy")),
    ),
    Case("dangling reference", lambda: m.Dangling.objects.create(name="leads nowhere", to_id=987654)),
    Case(
        "generic foreign key, target renumbered",
        _tagged,
        diverge=lambda: m.Tagged.objects.create(pk=1, name="other"),
        probe=_tag_target,
        expected=[("tag", "tagged"), "other", "tagged"],
    ),
    Case("order of many-to-many rows", _liked, probe=_order_of_liked),
    Case(
        "same users under other keys in the target, users not in the file",
        _documents,
        diverge=lambda: _authors("bob", "alice"),
        probe=_document_authors,
        only=("awkward.SeveralKeys",),
    ),
    Case(
        "other users on the same keys in the target",
        lambda: _authors("alice"),
        diverge=lambda: _authors("zoe"),
        probe=lambda: _names(m.OneKey),
        expected=["alice", "zoe"],
    ),
)
