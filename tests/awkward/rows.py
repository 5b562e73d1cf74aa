"""Rows for every awkward model: what is hard to keep, in as few rows as show it."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from django.apps import apps
from django.contrib.contenttypes.models import ContentType
from django.core.files.base import ContentFile
from django.db import connections, transaction
from django.db.models import Value as Sql

from tests.awkward import models as m
from tests.awkward.fields import Point

BIG = 2**63 - 1

VALUES: dict[str, dict[str, Any]] = {
    "nothing at all": {},
    "microseconds": {"moment": datetime(2026, 2, 3, 4, 5, 6, 789012, UTC), "time": time(23, 59, 59, 999999)},
    "year 1": {"moment": datetime(1, 1, 2, tzinfo=UTC), "day": date(1, 1, 1)},
    "year 9999": {"moment": datetime(9999, 12, 30, 23, 59, 59, 999999, UTC), "day": date(9999, 12, 31)},
    "no microseconds": {"moment": datetime(2026, 1, 1, tzinfo=UTC), "time": time(0, 0)},
    "durations": {"duration": timedelta(days=-3, microseconds=1)},
    "long durations": {"duration": timedelta(days=90000, seconds=5, microseconds=999999)},
    "decimals": {"decimal": Decimal("123456789.123456")},
    "small decimals": {"decimal": Decimal("-0.000000000001")},
    "floats": {"real": 0.1 + 0.2},
    "large floats": {"real": 1.7976931348623157e308},
    "small floats": {"real": 5e-324},
    "whole floats": {"real": 1e22},
    "64 bit": {"big": BIG, "small": 32767, "positive": BIG, "flag": True},
    "negative 64 bit": {"big": -(2**63), "small": -32768, "positive": 0, "flag": False},
    "binary": {"binary": bytes(range(256))},
    "empty binary": {"binary": b""},
    "uuid": {"uuid": uuid.UUID(int=2**128 - 1)},
    "ipv4": {"address": "192.0.2.1"},
    "ipv6": {"address": "2001:db8::1"},
    "json": {"json": {"b": [1, 2.5, None, True, "ü"], "a": {"nested": {"deep": []}}, "": "empty"}},
    "json null": {"json": Sql(None, m.models.JSONField()), "required_json": Sql(None, m.models.JSONField())},
    "json text": {"json": "text", "required_json": "null"},
    "json number": {"json": 0, "required_json": False},
    "json beyond 64 bit": {"json": [2**63, -(2**64), 10**40, 2**53 + 1]},
    "json small floats": {"json": [0.1, 1e-7, 1.5, -0.0000123]},
    "json odd text": {"json": {"\u2028": '\u2029 " \\ / <&> 🎉 \x7f'}},
    "empty text": {"char": "", "text": ""},
    "blanks": {"char": "  padded  ", "text": "trailing \t "},
    "control characters": {"text": "".join(map(chr, range(1, 32))) + "\x7f\x85", "char": "\r\n \r \n"},
    "emoji": {"char": "👩‍👩‍👧‍👦 🇨🇭", "text": "e\u0301 ≠ é ﷽"},
    "lines": {"text": "one\u2028two\u2029three\ufeff"},
    "back\\slashes": {"text": "\\N \\. \\\\ \\t '\" %s %% {x} ${y} \\x41", "char": "\\N"},
    "long text": {"text": "0123456789abcdef" * 8192},
    "not serialised": {"secret": "kept", "locked": "kept"},
    "fields of their own": {"scrambled": "plain", "point": Point(-3, 4)},
    "sealed json": {"sealed": {"ü": [1, None, 1e20, True], "a": [0.1 + 0.2, "🎉"]}},
    "sealed text": {"sealed": "null"},
    "stamps": {"stamped": datetime(2001, 2, 3, 4, 5, 6, 7, UTC), "first": datetime(2002, 2, 3, 4, 5, 6, 7, UTC)},
    "defaulted": {"defaulted": 7, "renamed": 9},
}
"""What each row of ``Value`` fills in. Every engine takes all of these."""

VALUES_OF_ENGINE: dict[str, dict[str, dict[str, Any]]] = {
    "sqlite": {
        "infinite floats": {"real": float("inf")},
        "negative infinite floats": {"real": float("-inf")},
        "surrogates": {"json": {"lone": "\ud800"}},
        "json large floats": {"json": [1.2345678901234567e19, 1e300]},
    },
    "postgresql": {
        "long decimals": {"decimal": Decimal("1234567890123456789012345678.000000000001")},
        "infinite floats": {"real": float("inf")},
        "not a number": {"real": float("nan")},
        "json large floats": {"json": [1.2345678901234567e19, 1e300]},
    },
    "mariadb": {
        "long decimals": {"decimal": Decimal("1234567890123456789012345678.000000000001")},
        "json large floats": {"json": [1.2345678901234567e19, 1e300]},
    },
}
"""What only some engines take, or take in a way of their own: it comes back on the same engine."""


def populate(engine: str, *, own: bool = True) -> None:
    """Fill every awkward model. With ``own``, add what this engine takes and others do not."""
    _make_unmanaged_table()
    _values(VALUES | (VALUES_OF_ENGINE[engine] if own else {}))
    _keys()
    _natural_keys()
    _relations()
    m.Unmanaged.objects.create(name="made elsewhere")
    m.OddTable.objects.create(note="odd")


def shift_keys(by: int) -> None:
    """Use up automatic primary keys, so that rows made afterwards get others."""
    for model in (m.Value, m.OneKey, m.SeveralKeys, m.Place, m.Friend, m.Hidden, m.Falsy, m.Tagged, m.HandWritten):
        for number in range(by):
            name = f"shift {number}"
            fields: dict[str, Any] = {"name": name} if model is not m.SeveralKeys else {"number": number}
            if model is m.SeveralKeys:
                fields["one"] = m.OneKey.objects.create(name=f"{name} of several")
            model._base_manager.create(**fields)
    for model in (m.SeveralKeys, m.Value, m.OneKey, m.Place, m.Friend, m.Hidden, m.Falsy, m.Tagged, m.HandWritten):
        model._base_manager.all().delete()


def clear() -> None:
    """Empty the awkward tables, and forget what operations reported."""
    connection = connections["default"]
    models = [model for model in apps.get_models(include_auto_created=True) if not model._meta.proxy]
    with connection.constraint_checks_disabled(), transaction.atomic(), connection.cursor() as cursor:
        for model in models:
            if model._meta.app_label in {"awkward", "backups"}:
                cursor.execute(f"DELETE FROM {connection.ops.quote_name(model._meta.db_table)}")


def make_unmanaged_table() -> None:
    _make_unmanaged_table()


def _make_unmanaged_table() -> None:
    connection = connections["default"]
    if m.Unmanaged._meta.db_table not in connection.introspection.table_names():
        with connection.schema_editor() as editor:
            editor.create_model(m.Unmanaged)


def _values(rows: dict[str, dict[str, Any]]) -> None:
    for name, columns in rows.items():
        made = m.Value.objects.create(name=name)
        m.Value.objects.filter(pk=made.pk).update(**columns)  # which stamps nothing
    with_file = m.Value.objects.create(name="file")
    with_file.file.save("Überschrift & 'odd' name.txt", ContentFile(b"content"))
    with_file.image.save("no picture.gif", ContentFile(b"GIF89a"))
    for microsecond in (0, 1, 999, 1000, 999999):
        m.Moment.objects.create(at=datetime(2026, 1, 1, 12, 0, 0, microsecond, UTC))


def _keys() -> None:
    parent = m.UuidKey.objects.create(id=uuid.UUID(int=9), name="parent")
    child = m.UuidKey.objects.create(name="child", parent=parent)
    for code in ("a", "A b/c", "🎉"):
        m.TextKey.objects.create(code=code, code_key=m.CodeKey.objects.create(code=code, title=code))
    m.BigKey.objects.create(id=2**40, uuid_key=child)
    one = m.OneKey.objects.create(name="linked")
    m.LinkedTwice.objects.create(linked=m.LinkedKey.objects.create(one=one, note="linked"))
    for tenant, number in ((1, "a"), (1, "b"), (2, "a")):
        m.CompositeKey.objects.create(tenant=tenant, number=number, note=f"{tenant}{number}")


def _natural_keys() -> None:
    for number in range(3):
        one = m.OneKey.objects.create(name=f"one {number}")
        several = m.SeveralKeys.objects.create(one=one, number=number)
        m.TwoLevels.objects.create(several=several, day=date(2026, 1, 1 + number))
        m.UniqueOnly.objects.create(several=several, note=f"unique {number}")
        m.RefersToHandWritten.objects.create(to=m.HandWritten.objects.create(name=f"hand {number}"))
        m.Nothing.objects.create(note="the same")
        m.MaybeUnique.objects.create(number=number or None, note=f"maybe {number}")
    m.MaybeUnique.objects.create(number=None, note="maybe not")
    values: dict[str, Any] = {
        "number": -1,
        "large": 2**63 - 1,
        "flag": False,
        "text": "",
        "day": date(2026, 1, 1),
        "at": datetime(2026, 1, 1, 12, 0, 0, 500_000, UTC),
        "nothing": m.Nothing.objects.create(note="referred to"),
        "one": one,
    }
    for name in ("all", "none", *values):
        held = {key: value for key, value in values.items() if name in (key, "all")}
        m.Nullable.objects.create(name=f"has {name}", **held)
    twins = [m.Twin.objects.create(name="twin", number=number) for number in (1, 2)]
    for twin in twins:
        m.RefersToTwin.objects.create(name=f"refers to {twin.number}", twin=twin)


def _relations() -> None:
    _rings()
    ones = list(m.OneKey.objects.order_by("name"))
    friends = [m.Friend.objects.create(name=name) for name in ("ann", "bob", "cyd")]
    friends[0].friends.add(friends[1], friends[2])
    friends[2].follows.add(friends[0])
    friends[0].follows.add(friends[0])
    for one in reversed(ones):
        friends[1].liked.add(one)
    for rank, one in enumerate(ones):
        m.Ranking.objects.create(friend=friends[2], one=one, rank=rank)
    for number in ("978-1", "978-0"):
        m.ByIsbn.objects.create(isbn=m.Isbn.objects.create(number=number), page=7)
    m.Place.objects.create(name="place")
    restaurant = m.Restaurant.objects.create(name="restaurant", stars=2)
    pizzeria = m.Pizzeria.objects.create(name="pizzeria", stars=1, oven="stone", rival=restaurant)
    m.RefersToPlace.objects.create(place=m.PlaceProxy.objects.get(name="pizzeria"), pizzeria=pizzeria)
    hidden = m.Hidden(name="hidden", deleted=True)
    hidden.save()
    m.Hidden.objects.create(name="visible")
    m.RefersToHidden.objects.create(to=hidden)
    m.RefersToFalsy.objects.create(to=m.Falsy.objects.create(name="falsy"))
    m.Dangling.objects.create(name="leads nowhere", to_id=987654)
    m.Dangling.objects.create(name="leads somewhere", to=ones[0])
    _tags(ones)


def _rings() -> None:
    connection = connections["default"]
    with transaction.atomic(), connection.constraint_checks_disabled():
        names = ("first", "second", "third")
        for position, name in enumerate(names):
            m.Ring.objects.create(pk=500 + position, name=name, next_id=500 + (position + 1) % len(names))
        m.Ring.objects.create(pk=600, name="itself", next_id=600)
        m.Left.objects.create(pk=700, name="left", right_id=800)
        m.Right.objects.create(pk=800, name="right", left_id=700)
    connection.check_constraints()


def _tags(ones: list[m.OneKey]) -> None:
    tagged = m.Tagged.objects.create(name="tagged")
    m.Tag.objects.create(name="number", target=tagged)
    m.Tag.objects.create(name="text", text_target=ones[1])
    m.Tag.objects.create(name="text key", text_target=m.CodeKey.objects.get(code="A b/c"))
    m.Tag.objects.create(name="uuid", text_target=m.UuidKey.objects.get(name="child"))
    kind = ContentType.objects.get_for_model(m.Tagged)
    m.Tag.objects.create(name="leads nowhere", content_type=kind, object_id=424242)
    m.Tag.objects.create(name="nothing")
