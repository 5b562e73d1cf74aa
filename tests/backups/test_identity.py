"""Rows are matched by what they are, and references follow them, however the keys have moved."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, cast

import pytest
from django.apps import apps
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import Model
from django.utils.translation import gettext_lazy

from backups.records.identity import natural_key_of
from tests.engines import ENGINES
from tests.systems import System

AWKWARD = "tests.awkward"


@pytest.fixture(params=ENGINES)
def awkward(request: pytest.FixtureRequest, new_system: Callable[..., System]) -> Iterator[System]:
    with new_system(request.param, AWKWARD).active() as active:
        yield active


def model(name: str) -> type[Model]:
    return apps.get_model("awkward", name)


def create(name: str, /, **fields: object) -> Model:
    return model(name)._base_manager.create(**fields)


def backed_up(system: System) -> None:
    created = system.run("create_backup")
    assert created.code == 0, created.err


def restored(system: System, *arguments: str) -> str:
    result = system.run("restore_backup", "latest", *arguments)
    assert result.code == 0, result.out + result.err
    validated = system.run("validate_restore", "latest", "--allow-extra")
    assert validated.code == 0, validated.out
    return result.out


def test_a_reference_to_a_reference_follows_the_last(awkward: System) -> None:
    for name in ("alice", "bob"):
        person = create("Person", name=name)
        create("Note", text=f"by {name}", profile=create("Profile", person=person))
    backed_up(awkward)
    for name in ("Note", "Profile"):
        model(name)._base_manager.all().delete()
    for key, name in enumerate(("bob", "alice"), start=1000):
        model("Person")._base_manager.filter(name=name).delete()
        create("Person", pk=key, name=name)
    for name in ("alice", "bob"):  # the keys of the one are now those of the other
        model("Person")._base_manager.filter(name=name).update(name=f"{name} moved")

    restored(awkward)

    authors = {note.text: note.profile.person.name for note in model("Note")._base_manager.all()}
    assert authors == {"by alice": "alice", "by bob": "bob"}


def test_a_row_known_by_a_generated_column_is_found_by_it(awkward: System) -> None:
    create("Lowered", email="B@x")
    backed_up(awkward)
    model("Lowered")._base_manager.all().delete()
    create("Lowered", email="NEW@x")

    restored(awkward)

    assert set(model("Lowered")._base_manager.values_list("email", flat=True)) == {"B@x", "NEW@x"}


def test_a_child_that_moves_between_twins_is_found(awkward: System) -> None:
    first, second = (create("Twin", name="twin", number=number) for number in (1, 2))
    create("RefersToTwin", name="child", twin=first)
    backed_up(awkward)
    assert awkward.run("validate_restore", "latest").code == 0
    model("RefersToTwin")._base_manager.update(twin=second)

    found = awkward.run("validate_restore", "latest")

    assert found.code == 3
    assert 'value_differs awkward.referstotwin ["child"] twin' in found.out


@pytest.mark.parametrize("left", [0, 1])
def test_twins_come_back_as_two(awkward: System, left: int) -> None:
    twins = [create("Twin", name="twin", number=number) for number in (1, 2)]
    for twin in twins:
        create("RefersToTwin", name=f"of {twin.number}", twin=twin)  # type: ignore[attr-defined]
    backed_up(awkward)
    model("RefersToTwin")._base_manager.all().delete()
    model("Twin")._base_manager.exclude(number=left).delete()
    create("Twin", name="other", number=9)

    restored(awkward)

    assert {one.name: one.twin.number for one in model("RefersToTwin")._base_manager.all()} == {"of 1": 1, "of 2": 2}


Twins = list[tuple[int, int]]
"""Keys and numbers."""


@pytest.mark.parametrize(
    ("found", "merged"),
    [
        ([(1, 100), (5, 1), (6, 2)], [(1, 100), (5, 1), (6, 2)]),
        ([(1, 100)], [(1, 100), (5, 1), (6, 2)]),
        ([(1, 2), (3, 1)], [(1, 2), (3, 1)]),
        ([(5, 2), (6, 1)], [(5, 2), (6, 1)]),
        ([(1, 100), (6, 200)], [(1, 100), (5, 1), (6, 2)]),
        ([(1, 1), (2, 1), (5, 100)], [(1, 1), (2, 1), (5, 100), (6, 2)]),
    ],
)
def test_a_twin_is_no_other_than_the_one_like_it_or_of_its_key(awkward: System, found: Twins, merged: Twins) -> None:
    for key, number in ((5, 1), (6, 2)):
        twin = create("Twin", pk=key, name="twin", number=number)
        create("RefersToTwin", name=f"of {number}", twin=twin)
    backed_up(awkward)
    for name in ("RefersToTwin", "Twin"):
        model(name)._base_manager.all().delete()
    for key, number in found:
        create("Twin", pk=key, name="twin", number=number)

    for arguments in ([], [], ["--mode", "replace", "--no-input"], ["--mode", "replace", "--no-input"]):
        restored(awkward, *arguments)
        twins = list(model("Twin")._base_manager.order_by("pk").values_list("pk", "number"))
        assert twins == merged if not arguments else sorted(number for _, number in twins) == [1, 2]
        referring: Any = model("RefersToTwin")._base_manager.all()
        assert {one.name: one.twin.number for one in referring} == {"of 1": 1, "of 2": 2}


def test_the_only_row_of_a_key_that_nothing_keeps_unique_is_overwritten(awkward: System) -> None:
    create("Twin", pk=5, name="twin", number=1)
    backed_up(awkward)
    model("Twin")._base_manager.all().delete()
    create("Twin", pk=30, name="twin", number=100)

    restored(awkward)

    assert model("Twin")._base_manager.values_list("pk", "number").get() == (30, 1)


@pytest.mark.parametrize("found", [[], [20], [6], [6, 20], [3, 6, 20]])
def test_equal_twins_keep_what_refers_to_them_apart(awkward: System, found: list[int]) -> None:
    for key in (4, 5, 6):
        create("RefersToTwin", name=f"of {key}", twin=create("Twin", pk=key, name="twin", number=1))
    backed_up(awkward)
    for name in ("RefersToTwin", "Twin"):
        model(name)._base_manager.all().delete()
    create("Twin", pk=4, name="other", number=1)
    for key in found:
        create("Twin", pk=key, name="twin", number=1)

    restored(awkward)
    again = awkward.run("restore_backup", "latest", "--dry-run", "--json")

    assert json.loads(again.out)["verdict"] == "proved"
    assert model("Twin")._base_manager.filter(name="twin").count() == 3
    assert len({one.twin_id for one in model("RefersToTwin")._base_manager.all()}) == 3  # type: ignore[attr-defined]


def test_a_row_known_by_a_generic_reference_is_followed(awkward: System) -> None:
    tagged = create("Tagged", name="tagged")
    create("BookmarkNote", text="note", bookmark=create("Bookmark", target=tagged))
    backed_up(awkward)
    for name in ("BookmarkNote", "Bookmark", "Tagged"):
        model(name)._base_manager.all().delete()
    create("Tagged", pk=tagged.pk, name="other")

    restored(awkward)

    note = model("BookmarkNote")._base_manager.get()
    assert note.bookmark.target.name == "tagged"  # type: ignore[attr-defined]


def test_a_key_made_of_references_follows_them(awkward: System) -> None:
    owner = create("Person", name="owner")
    create("Plot", owner=owner, number=1, note="theirs")
    backed_up(awkward)
    model("Plot")._base_manager.all().delete()
    model("Person")._base_manager.all().delete()
    other = create("Person", pk=owner.pk, name="other")
    create("Plot", owner=other, number=1, note="another")

    restored(awkward)

    found = {(plot.owner.name, plot.note) for plot in model("Plot")._base_manager.all()}  # type: ignore[attr-defined]
    assert found == {("owner", "theirs"), ("other", "another")}


def test_a_row_known_by_a_moment_is_overwritten(awkward: System) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
    create("Stamped", at=at, note="as it was")
    backed_up(awkward)
    model("Stamped")._base_manager.update(note="edited")

    restored(awkward)

    assert model("Stamped")._base_manager.values_list("at", "note").get() == (at, "as it was")


@pytest.mark.parametrize("text", ["01", "1 ", "00000000000000000000000000000001", "1" * 100, "9" * 19])
def test_text_in_a_generic_reference_stays_as_it_was(awkward: System, text: str) -> None:
    kind = ContentType.objects.get_for_model(model("Tagged"))
    create("Tagged", pk=1, name="tagged")
    tag = create("Tag", name="odd", text_type=kind, text_id=text)
    backed_up(awkward)
    model("Tag")._base_manager.filter(pk=tag.pk).update(text_id="0001")

    assert awkward.run("validate_restore", "latest").code == 3
    restored(awkward)

    assert model("Tag")._base_manager.get(pk=tag.pk).text_id == text  # type: ignore[attr-defined]


def test_parts_of_a_natural_key_are_written_as_django_does() -> None:
    class Odd:
        def natural_key(self) -> tuple[object, ...]:
            return Decimal("1.50"), timedelta(hours=1), gettext_lazy("name"), "text", 1

    key = natural_key_of(cast("Model", Odd()))
    assert key == json.loads(DjangoJSONEncoder().encode(Odd().natural_key()))


@pytest.mark.parametrize("zeros", ["", "00"])
def test_text_in_a_generic_reference_keeps_its_zeros_where_the_key_moves(awkward: System, zeros: str) -> None:
    tagged = create("Tagged", name="tagged")
    kind = ContentType.objects.get_for_model(model("Tagged"))
    create("Tag", name="odd", text_type=kind, text_id=f"{zeros}{tagged.pk}")
    backed_up(awkward)
    model("Tag")._base_manager.all().delete()
    key = tagged.pk
    tagged.delete()
    create("Tagged", pk=key, name="another")

    restored(awkward)

    moved = model("Tagged")._base_manager.get(name="tagged")
    assert moved.pk != key
    assert model("Tag")._base_manager.get().text_id == f"{zeros}{moved.pk}"  # type: ignore[attr-defined]


def test_keys_of_64_bits_are_kept(awkward: System) -> None:
    largest = 2**64 - 1 if awkward.engine == "mariadb" else 2**63 - 1
    create("HugeKey", number=largest, note="as it was")
    backed_up(awkward)
    model("HugeKey")._base_manager.update(note="edited")
    create("HugeKey", number=largest - 1, note="extra")

    restored(awkward)

    assert dict(model("HugeKey")._base_manager.values_list()) == {largest: "as it was", largest - 1: "extra"}


def test_a_generic_reference_to_a_key_of_nineteen_digits_is_kept(awkward: System) -> None:
    tagged = create("Tagged", pk=2**63 - 1, name="tagged")
    kind = ContentType.objects.get_for_model(model("Tagged"))
    create("Tag", name="of the last one", content_type=kind, object_id=tagged.pk, text_type=kind, text_id=tagged.pk)
    backed_up(awkward)
    model("Tag")._base_manager.all().delete()
    tagged.delete()

    restored(awkward)

    tag: Any = model("Tag")._base_manager.get()
    assert tag.target == tag.text_target == model("Tagged")._base_manager.get()


def test_a_reference_that_led_nowhere_is_not_given_to_another_row(awkward: System) -> None:
    kind = ContentType.objects.get_for_model(model("OneKey"))
    gone = create("OneKey", name="gone")
    create("Tag", name="of what is gone", content_type=kind, object_id=gone.pk)
    key = gone.pk
    gone.delete()
    backed_up(awkward)
    model("Tag")._base_manager.all().delete()
    create("OneKey", pk=key, name="unrelated")

    refused = awkward.run("restore_backup", "latest")

    assert refused.code == 3
    assert "reference_dangling awkward.tag" in refused.out
    assert model("Tag")._base_manager.count() == 0
    assert awkward.run("restore_backup", "latest", "--on-missing", "null").code == 0
    tag = model("Tag")._base_manager.get()
    assert (tag.name, tag.object_id) == ("of what is gone", None)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("mode", "left"), [("merge", 1), ("replace", 0)])
def test_a_row_that_is_skipped_stays_in_a_merge_and_goes_in_a_replacement(
    awkward: System, settings: Any, mode: str, left: int
) -> None:
    settings.BACKUPS = settings.BACKUPS | {"EXCLUDE": ["awkward.OneKey"]}
    one = create("OneKey", name="one")
    create("Dangling", name="led to one", to=one)
    backed_up(awkward)
    one.delete()

    restored = awkward.run("restore_backup", "latest", "--mode", mode, "--on-missing", "skip", "--no-input")

    assert restored.code == 0, restored.out
    assert "warning reference_missing awkward.dangling" in restored.out
    assert model("Dangling")._base_manager.count() == left


@pytest.mark.parametrize("setting", ["APPEND_ONLY", "EXCLUDE"])
def test_a_row_that_stays_is_not_left_to_refer_to_another(awkward: System, settings: Any, setting: str) -> None:
    settings.BACKUPS = settings.BACKUPS | {setting: ["awkward.RefersToFalsy"]}
    create("Falsy", pk=5, name="carol")
    backed_up(awkward)
    model("Falsy")._base_manager.all().delete()
    create("RefersToFalsy", pk=7, to=create("Falsy", pk=5, name="bob"))

    for arguments in (["--dry-run"], []):
        refused = awkward.run("restore_backup", "latest", "--mode", "replace", "--no-input", *arguments)
        assert refused.code == 3
        assert "error row_referred_to awkward.referstofalsy [7] to" in refused.out
        assert "bob" in refused.out
    assert model("Falsy")._base_manager.values_list("pk", "name").get() == (5, "bob")
    model("RefersToFalsy")._base_manager.update(to=None)
    assert awkward.run("restore_backup", "latest", "--mode", "replace", "--no-input").code == 0
    assert model("Falsy")._base_manager.values_list("pk", "name").get() == (5, "carol")


@pytest.mark.parametrize("setting", ["APPEND_ONLY", "EXCLUDE"])
def test_what_is_said_of_a_row_that_goes_is_said_of_no_other(awkward: System, settings: Any, setting: str) -> None:
    settings.BACKUPS = settings.BACKUPS | {setting: ["awkward.Tag", "awkward.Dangling"]}
    create("OneKey", pk=5, name="carol")
    backed_up(awkward)
    model("OneKey")._base_manager.all().delete()
    bob = create("OneKey", pk=5, name="bob")
    kind = ContentType.objects.get_for_model(bob)
    create("Tag", name="about bob", content_type=kind, object_id=5, text_type=kind, text_id="5")
    create("Dangling", name="of bob", to_id=create("OneKey", pk=6, name="bob's brother").pk)

    for _ in range(2):
        restored(awkward, "--mode", "replace", "--no-input")

    carol = model("OneKey")._base_manager.get()
    assert carol.name == "carol"  # type: ignore[attr-defined]
    assert create("OneKey", name="dave").pk not in (5, 6)
    tag: Any = model("Tag")._base_manager.get()
    assert (tag.object_id, tag.text_id, tag.target, tag.text_target) == (5, "5", None, None)
    assert not model("OneKey")._base_manager.filter(pk=6).exists()


@pytest.mark.parametrize("is_empty", [True, False])
def test_what_is_said_of_a_row_that_is_gone_is_said_of_no_other(awkward: System, is_empty: bool) -> None:
    user = get_user_model().objects.get(username="admin")
    create("OneKey", pk=5, name="carol")
    create("Place", pk=5, name="carol's")
    create("Restaurant", pk=9, name="carol's too", stars=3)
    create("Tag", name="about carol", content_type=kind_of("OneKey"), object_id=5)
    backed_up(awkward)
    for name in ("Tag", "OneKey", "Restaurant", "Place"):
        model(name)._base_manager.all().delete()
    entry = {"user": user, "content_type": kind_of("OneKey"), "action_flag": 3, "change_message": ""}
    LogEntry.objects.create(object_id="5", object_repr="bob", **entry)
    LogEntry.objects.create(object_id="6", object_repr="bob's brother", **entry)
    create("Tag", name="about bob's", text_type=kind_of("Restaurant"), text_id="9")
    if not is_empty:
        create("OneKey", pk=1, name="alice")

    for _ in range(2):
        restored(awkward)

    assert model("OneKey")._base_manager.get(name="carol").pk > 6
    assert model("Tag")._base_manager.get(name="about carol").target.name == "carol"  # type: ignore[attr-defined]
    assert model("Tag")._base_manager.get(name="about bob's").text_target is None  # type: ignore[attr-defined]
    assert dict(model("Place")._base_manager.values_list("name", "pk")) == {"carol's": 5, "carol's too": 10}
    assert model("Restaurant")._base_manager.get().name == "carol's too"  # type: ignore[attr-defined]


def test_what_the_package_says_of_a_row_that_is_gone_keeps_no_key_from_it(awkward: System) -> None:
    create("OneKey", pk=5, name="carol")
    create("Tag", name="about carol", content_type=kind_of("OneKey"), object_id=5)
    backed_up(awkward)
    model("OneKey")._base_manager.all().delete()

    restored(awkward)

    assert model("OneKey")._base_manager.get().pk == 5


def kind_of(name: str) -> ContentType:
    return ContentType.objects.get_for_model(model(name))
