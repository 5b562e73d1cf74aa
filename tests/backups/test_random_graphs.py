"""Random graphs of rows, backed up, changed and restored, end as the package says or as they were, with findings.

A few dozen examples for each engine; thousands with ``--hypothesis-profile long``.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from django.apps import apps
from django.conf import settings
from django.contrib.contenttypes.models import ContentType
from django.db import IntegrityError, transaction
from django.test import override_settings
from hypothesis import HealthCheck, given, note
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests import oracle
from tests.engines import ENGINES
from tests.systems import Engine, System

AWKWARD = "tests.awkward"
NAMES = ("ann", "bob", "cyd", "dan")
KEYS = 6
"""Primary keys are so few that rows keep taking those of others."""


@dataclass(frozen=True)
class Step:
    """One change. What it refers to is chosen among the rows that there are."""

    verb: str
    kind: str
    name: str
    key: int
    other: int


def pick(kind: str, number: int) -> Any:
    rows = model(kind)._base_manager.order_by("pk")
    count = rows.count()
    return rows[number % count] if count else None


def model(kind: str) -> Any:
    return apps.get_model("awkward", kind)


def free_key(kind: str, key: int) -> int:
    taken = set(model(kind)._base_manager.values_list("pk", flat=True))
    return next(one for one in range(key, key + len(taken) + 1) if one not in taken)


def named(step: Step, **fields: Any) -> None:
    model(step.kind)._base_manager.create(pk=free_key(step.kind, step.key), name=step.name, **fields)


def noted(step: Step, **fields: Any) -> None:
    model(step.kind)._base_manager.create(pk=free_key(step.kind, step.key), note=step.name, **fields)


def tag(step: Step) -> None:
    """Attach a tag to what there is, or to nothing."""
    kind = ("Tagged", "OneKey", "Bookmark")[step.other % 3]
    text = ("OneKey", "CodeKey", "UuidKey")[step.key % 3]
    target, text_target = pick(kind, step.key), pick(text, step.other)
    made = model("Tag")(pk=free_key("Tag", step.key), name=step.name, target=target, text_target=text_target)
    if target is None:
        made.content_type = ContentType.objects.get_for_model(model(kind))
        made.object_id = step.key
    made.save()


def friend(step: Step) -> None:
    key = free_key("Friend", step.key)
    made = model("Friend")._base_manager.create(pk=key, name=step.name)
    if other := pick("Friend", step.other):
        made.friends.add(other)
        other.follows.add(made)
    if liked := pick("OneKey", step.other):
        made.liked.add(liked)


def ring(step: Step) -> None:
    """Put a row into the circle, or begin one with itself."""
    key, after = free_key("Ring", step.key), pick("Ring", step.other)
    made = model("Ring")._base_manager.create(pk=key, name=step.name, next_id=after.next_id if after else key)
    if after:
        model("Ring")._base_manager.filter(pk=after.pk).update(next=made)


MAKERS: dict[str, Callable[[Step], Any]] = {
    "OneKey": named,
    "SeveralKeys": lambda step: model("SeveralKeys")._base_manager.create(
        pk=free_key("SeveralKeys", step.key), one=pick("OneKey", step.other), number=step.other % 2
    ),
    "UniqueOnly": lambda step: noted(step, several=pick("SeveralKeys", step.other)),
    "Nothing": noted,
    "MaybeUnique": lambda step: noted(step, number=step.other % 3 or None),
    "Friend": friend,
    "Ranking": lambda step: model("Ranking")._base_manager.create(
        pk=free_key("Ranking", step.key),
        friend=pick("Friend", step.other),
        one=pick("OneKey", step.key),
        rank=step.other,
    ),
    "Ring": ring,
    "UuidKey": lambda step: model("UuidKey")._base_manager.create(
        pk=uuid.UUID(int=step.key), name=step.name, parent=pick("UuidKey", step.other)
    ),
    "CodeKey": lambda step: model("CodeKey")._base_manager.create(code=step.name, title=str(step.other)),
    "TextKey": lambda step: model("TextKey")._base_manager.create(code=step.name, code_key=pick("CodeKey", step.other)),
    "BigKey": lambda step: model("BigKey")._base_manager.create(
        pk=free_key("BigKey", step.key), uuid_key=pick("UuidKey", step.other)
    ),
    "LinkedKey": lambda step: model("LinkedKey")._base_manager.create(one=pick("OneKey", step.other), note=step.name),
    "LinkedTwice": lambda step: model("LinkedTwice")._base_manager.create(linked=pick("LinkedKey", step.other)),
    "CompositeKey": lambda step: model("CompositeKey")._base_manager.create(
        tenant=step.other, number=step.name, note=str(step.key)
    ),
    "Dangling": lambda step: named(step, to_id=step.other),
    "Tagged": named,
    "Tag": tag,
    "Bookmark": lambda step: model("Bookmark")._base_manager.create(
        pk=free_key("Bookmark", step.key), target=pick("Tagged", step.other)
    ),
    "BookmarkNote": lambda step: model("BookmarkNote")._base_manager.create(
        pk=free_key("BookmarkNote", step.key), text=step.name, bookmark=pick("Bookmark", step.other)
    ),
    "Place": named,
    "Pizzeria": lambda step: model("Pizzeria")._base_manager.create(
        pk=free_key("Place", step.key), name=step.name, stars=1, oven="", rival=pick("Restaurant", step.other)
    ),
    "Person": named,
    "Profile": lambda step: model("Profile")._base_manager.create(
        pk=free_key("Profile", step.key), person=pick("Person", step.other)
    ),
    "Note": lambda step: model("Note")._base_manager.create(
        pk=free_key("Note", step.key), text=step.name, profile=pick("Profile", step.other)
    ),
    "Plot": lambda step: model("Plot")._base_manager.create(
        owner=pick("Person", step.other), number=step.key, note=step.name
    ),
    "Isbn": lambda step: model("Isbn")._base_manager.create(pk=free_key("Isbn", step.key), number=step.name),
    "ByIsbn": lambda step: model("ByIsbn")._base_manager.create(
        pk=free_key("ByIsbn", step.key), isbn=pick("Isbn", step.other), page=step.other
    ),
    "Hidden": lambda step: named(step, deleted=step.other % 2 == 0),
    "RefersToHidden": lambda step: model("RefersToHidden")._base_manager.create(
        pk=free_key("RefersToHidden", step.key), to=pick("Hidden", step.other)
    ),
}
TEXTS = ("name", "note", "title", "text")


def steps(*verbs: str) -> st.SearchStrategy[Step]:
    return st.builds(
        Step,
        verb=st.sampled_from(verbs),
        kind=st.sampled_from(sorted(MAKERS)),
        name=st.sampled_from(NAMES),
        key=st.integers(1, KEYS),
        other=st.integers(1, KEYS),
    )


def take(step: Step) -> None:
    """Change the system by one step, or not at all where a constraint is against it."""
    with suppress(IntegrityError, ValueError), transaction.atomic():
        rows = model(step.kind)._base_manager
        if step.verb == "make":
            MAKERS[step.kind](step)
        elif step.verb == "empty":
            for row in rows.all():
                row.delete()
        elif row := pick(step.kind, step.key):
            if step.verb == "delete":
                row.delete()
            else:
                for name in TEXTS:
                    if any(field.name == name and not field.primary_key for field in row._meta.local_fields):
                        rows.filter(pk=row.pk).update(**{name: step.name})


def uninvolved() -> set[str]:
    """Name the models that no example changes. Without them, there are ten times as many examples."""
    labels = {one._meta.label_lower for one in apps.get_models(include_auto_created=True)}
    return {label for label in labels if not label.startswith(("awkward.", "backups.", "contenttypes."))}


@pytest.fixture(scope="module", params=ENGINES)
def system(
    request: pytest.FixtureRequest, engines: Callable[[str], Engine], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    """One system for all examples, which each empties; it is far faster than one for each."""
    engine = engines(request.param)
    configuration = engine.fresh(AWKWARD)
    with System(request.param, configuration, tmp_path_factory.mktemp("graphs"), (AWKWARD,)).active() as active:
        from tests.awkward import rows  # which must not be imported before its app is installed

        rows.make_unmanaged_table()
        others = sorted(uninvolved())
        with override_settings(BACKUPS=settings.BACKUPS | {"EXCLUDE": others, "APPEND_ONLY": []}):
            yield active
    engine.drop(configuration["NAME"])


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(
    before=st.lists(steps("make"), min_size=5, max_size=40),
    after=st.lists(steps("make", "make", "make", "edit", "delete", "empty"), max_size=25),
    mode=st.sampled_from(("merge", "replace")),
)
def test_random_graphs_end_equal_or_unchanged(system: System, before: list[Step], after: list[Step], mode: str) -> None:
    from tests.awkward import rows

    rows.clear()
    for step in before:
        take(step)
    expected = oracle.rows(ignore=uninvolved())
    package = system.directory / "package.zip"
    package.unlink(missing_ok=True)
    created = system.run("create_backup", "--output", str(package))
    assert created.code == 0, created.err
    for step in after:
        take(step)
    diverged, keys = oracle.rows(ignore=uninvolved()), awkward_keys()

    restored = system.run("restore_backup", str(package), "--mode", mode, "--no-input", "--no-safety-backup")

    note(restored.out + restored.err)
    found = oracle.rows(ignore=uninvolved())
    if restored.code == 3:
        assert "error " in restored.out
        assert oracle.differences(diverged, found) == []
        assert awkward_keys() == keys
        return
    assert restored.code == 0
    if mode == "replace":
        assert oracle.differences(expected, found) == []
    else:
        for label, made in expected.items():
            assert Counter(made) <= Counter(found[label]), label
        for label, made in diverged.items():
            assert others(label, made, expected[label]) <= Counter(found[label]), label


def awkward_keys() -> dict[str, Any]:
    return {label: keys for label, keys in oracle.keys().items() if label.startswith("awkward.")}


def others(label: str, rows: list[Any], expected: list[Any]) -> Counter[Any]:
    """Return the rows that are not those of a package under another content: they stay."""
    names = oracle._identity(apps.get_model(label))
    # Bookmarks are known by their primary keys, because others refer to them: what one means may be overwritten.
    if names is None or label == "awkward.bookmark":
        return Counter()
    fields = oracle._fields(apps.get_model(label), names)
    identities = {tuple(pair for pair in row if pair[0] in fields) for row in expected}
    return Counter(row for row in rows if tuple(pair for pair in row if pair[0] in fields) not in identities)
