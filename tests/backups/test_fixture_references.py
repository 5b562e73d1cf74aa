"""References in fixtures, by primary key or natural key, lead to the rows that they mean, or are refused by name."""

from __future__ import annotations

import json
from pathlib import Path

from django.contrib.auth import get_user_model

from core.models import AuditEvent
from documents.models import Document, DocumentType
from tests.backups.conftest import nothing_changes
from tests.fixtures import STYLES, TYPE, document, dump, findings, user, write
from tests.systems import System


def test_people_keep_their_documents_when_others_have_their_keys(system: System, tmp_path: Path) -> None:
    taken = sorted(get_user_model().objects.values_list("pk", flat=True))
    fixture = write(
        tmp_path / "f",
        user("zoe", taken[0]),
        user("adam", taken[1]),
        TYPE,
        document("NEW-1", 5, taken[1], reviewers=taken),
    )
    restored = system.run("restore_backup", str(fixture), "--no-input")
    assert restored.code == 0, restored.out + restored.err
    one = Document.objects.get(number="NEW-1")
    assert one.author.username == "adam"
    # In the order of the list.
    order = one.reviewers.through.objects.order_by("pk").values_list("user__username", flat=True)
    assert list(order) == ["zoe", "adam"]
    assert get_user_model().objects.get(pk=taken[0]).username not in ("zoe", "adam")


def test_a_reference_by_key_to_a_row_outside_the_file_is_refused_by_name(lite: System, tmp_path: Path) -> None:
    someone = get_user_model().objects.order_by("pk").first()
    fixture = write(tmp_path / "f", TYPE, document("NEW-1", 5, someone.pk))
    with nothing_changes(lite):
        refused = lite.run("restore_backup", str(fixture), "--json", "--no-input")
    assert refused.code == 3
    (finding,) = [one for one in json.loads(refused.out)["findings"] if one["severity"] == "error"]
    assert (finding["code"], finding["model"], finding["field"], finding["identity"]) == (
        "reference_by_key_only",
        "documents.document",
        "author",
        ["NEW-1"],
    )

    trusted = lite.run("restore_backup", str(fixture), "--json", "--no-input", "--trust-keys")
    assert trusted.code == 0, trusted.out
    assert ("warning", "reference_by_key_only") in findings(trusted.out)
    assert Document.objects.get(number="NEW-1").author == someone


def test_a_natural_reference_to_a_row_outside_the_file_is_looked_up(lite: System, tmp_path: Path) -> None:
    someone = get_user_model().objects.order_by("pk").last()
    fixture = write(tmp_path / "f", TYPE, document("NEW-1", 5, [someone.username]))
    restored = lite.run("restore_backup", str(fixture), "--no-input")
    assert restored.code == 0, restored.out + restored.err
    assert Document.objects.get(number="NEW-1").author == someone
    validated = lite.run("validate_restore", str(fixture), "--allow-extra")
    assert validated.code == 0, validated.out

    # The file may hold some of the users and not this one.
    fixture = write(tmp_path / "h", user("adam", someone.pk), TYPE, document("NEW-3", 5, [someone.username]))
    restored = lite.run("restore_backup", str(fixture), "--no-input")
    assert restored.code == 0, restored.out + restored.err
    assert Document.objects.get(number="NEW-3").author == someone
    assert lite.run("validate_restore", str(fixture), "--allow-extra").code == 0

    unknown = write(tmp_path / "g", user("adam", 5), TYPE, document("NEW-2", 6, ["nobody"]))
    with nothing_changes(lite):
        refused = lite.run("restore_backup", str(unknown), "--json", "--no-input")
    assert refused.code == 3
    assert ("error", "reference_missing") in findings(refused.out)


def test_null_and_skip_treat_references_that_no_row_answers(lite: System, tmp_path: Path) -> None:
    fixture = write(
        tmp_path / "f", user("adam", 700, manager=9999), TYPE, document("NEW-1", 5, 8888), document("NEW-2", 6, 700)
    )
    skipped = lite.run("restore_backup", str(fixture), "--json", "--no-input", "--on-missing", "skip")
    assert skipped.code == 0, skipped.out
    assert not Document.objects.filter(number="NEW-1").exists()
    # Adam is skipped with his manager, and with him what he wrote.
    assert not Document.objects.filter(number="NEW-2").exists()

    fixture = write(tmp_path / "g", user("adam", 700, manager=9999))
    nulled = lite.run("restore_backup", str(fixture), "--json", "--no-input", "--on-missing", "null")
    assert nulled.code == 0, nulled.out
    assert get_user_model().objects.get(username="adam").manager is None


def test_keys_that_were_lost_are_never_found_again_by_chance(lite: System, tmp_path: Path) -> None:
    fixture = write(tmp_path / "f", user("adam", None), user("bob", None), TYPE, document("NEW-1", 5, 1))
    with nothing_changes(lite):
        refused = lite.run("restore_backup", str(fixture), "--json", "--no-input")
    assert refused.code == 3
    assert {("info", "primary_key_absent"), ("error", "reference_by_key_only")} <= findings(refused.out)


def test_what_only_lost_keys_told_is_emptied_where_that_was_asked_for(lite: System, tmp_path: Path) -> None:
    assert lite.run("seed_demo").code == 0
    about = AuditEvent.objects.filter(content_type__model="document").values_list("hash", flat=True)
    hashes = list(about)
    fixture = dump(tmp_path / "f", *STYLES["natural-foreign+natural-primary"])
    assert lite.run("reinit_system", "--no-input").code == 0
    with nothing_changes(lite):
        refused = lite.run("restore_backup", str(fixture), "--json", "--no-input")
    assert refused.code == 3
    assert ("error", "reference_by_key_only") in findings(refused.out)

    restored = lite.run("restore_backup", str(fixture), "--json", "--no-input", "--on-missing", "null")
    assert restored.code == 0, restored.out[-3000:]
    assert ("warning", "reference_by_key_only") in findings(restored.out)
    assert hashes
    assert AuditEvent.objects.filter(hash__in=hashes, content_type=None).count() == len(hashes)


def test_generic_references_follow_their_rows_to_other_keys(told: System, tmp_path: Path) -> None:
    before = {event.hash: event.target.number for event in AuditEvent.objects.filter(content_type__model="document")}
    fixture = dump(tmp_path / "f")
    assert told.run("reinit_system", "--no-input").code == 0
    kind = DocumentType.objects.create(code="ZZZ", name="in the way")
    admin = get_user_model().objects.order_by("pk").first()
    for _ in range(3):
        Document.objects.create(title="in the way", document_type=kind, author=admin)
    restored = told.run("restore_backup", str(fixture), "--json", "--no-input")
    assert restored.code == 0, restored.out[-3000:]
    assert before
    assert {event.hash: event.target.number for event in AuditEvent.objects.filter(hash__in=before)} == before
