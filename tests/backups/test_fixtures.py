"""What dumpdata wrote of a whole system comes back, but for what a finding says the file did not have."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth import get_user_model

from documents.models import Document
from tests import oracle
from tests.backups.conftest import TRAIL
from tests.fixtures import STYLES, dump, findings, relations
from tests.systems import System
from workflows.models import DocumentWorkflow


@pytest.mark.parametrize(
    ("form", "style", "how"),
    [
        ("json", "pk", "plain"),
        ("json", "natural-foreign", "gz"),
        ("jsonl", "natural-foreign+natural-primary", "bz2"),
        ("xml", "pk", "xz"),
        ("xml", "natural-foreign+natural-primary", "plain"),
        ("yaml", "natural-foreign", "zip"),
        ("jsonl", "pk", "zip"),
    ],
)
def test_a_fixture_survives_reinitialisation(told: System, tmp_path: Path, form: str, style: str, how: str) -> None:
    if form == "yaml":
        pytest.importorskip("yaml")
    before = relations()
    # Without its primary keys, nothing in a file says what an entry of the audit trail is about.
    left_out = ["--exclude", "core.auditevent"] if "primary" in style else []
    fixture = dump(tmp_path / "old", *STYLES[style], *left_out, form=form, how=how)
    assert told.run("reinit_system", "--no-input").code == 0
    assert Document.objects.count() == 0

    restored = told.run("restore_backup", str(fixture), "--json", "--no-input")

    assert restored.code == 0, restored.out[-3000:] + restored.err[-2000:]
    assert get_user_model().objects.count() == 10
    assert Document.objects.count() == 5
    assert DocumentWorkflow.objects.count() == 4
    assert relations() == before
    assert ("warning", "files_absent") in findings(restored.out)
    assert (("info", "primary_key_absent") in findings(restored.out)) is ("primary" in style)
    assert (("warning", "precision_reduced") in findings(restored.out)) is form.startswith("json")
    validated = told.run("validate_restore", str(fixture), "--allow-extra")
    assert validated.code == 0, validated.out[-3000:]


GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.mark.parametrize("name", ["fixture-pk.json.gz", "fixture-natural.xml.gz", "migration-package.tar.gz"])
def test_golden_fixtures_are_restored(system: System, name: str) -> None:
    restored = system.run("restore_backup", str(GOLDEN / name), "--json", "--no-input")
    assert restored.code == 0, restored.out[-3000:] + restored.err
    assert get_user_model().objects.count() == 10
    assert Document.objects.count() == 5
    assert DocumentWorkflow.objects.count() == 4
    one = Document.objects.get(number="SOP-2026-0001")
    assert (one.title, one.author.username, one.versions.count()) == ("Cleaning of vessels", "alice", 1)


AWKWARD = "tests.awkward"


@pytest.mark.parametrize(
    ("engine", "form", "style"),
    [("sqlite", "yaml", "pk"), ("postgresql", "xml", "natural-foreign"), ("mariadb", "jsonl", "natural-foreign")],
)
def test_awkward_rows_differ_only_by_what_the_file_did_not_have(
    new_system: Callable[..., System], tmp_path: Path, engine: str, form: str, style: str
) -> None:
    if form == "yaml":
        pytest.importorskip("yaml")
    with new_system(engine, AWKWARD).active() as old:
        from tests.awkward import models, rows

        rows.populate(engine, own=False)
        # What dumpdata cannot write: control characters in XML, and natural references that dangle or mean two rows.
        models.Value.objects.filter(text__regex="[\x01-\x08\x0b-\x1f]").delete()
        models.Dangling.objects.all().delete()
        models.RefersToTwin.objects.all().delete()
        models.Value.objects.create(name="line feed", text="one\ntwo")
        if form == "xml":
            models.Value.objects.filter(sealed__isnull=False).delete()  # JSON that is stored as text
        if form == "jsonl":
            models.Moment.objects.all().delete()  # unique times that differ only in microseconds
            models.RefersToFalsy.objects.all().delete()  # natural references to what is false become null
        before = oracle.rows(ignore=TRAIL)
        fixture = dump(tmp_path / "f", "--all", *STYLES[style], form=form)
        assert old.engine == engine
    with new_system("sqlite", AWKWARD).active() as new:
        rows.make_unmanaged_table()
        restored = new.run("restore_backup", str(fixture), "--json", "--no-input")
        assert restored.code == 0, restored.out[-3000:]
        allowed = {"json", "secret"}  # JSON null, and a field that is not serialised
        if form == "jsonl":
            allowed |= {"moment", "first", "stamped", "time", "at", "date_joined"}
        differences = oracle.differences(before, oracle.rows(ignore=TRAIL))
        assert [one for one in differences if not any(f"('{name}'," in one for name in allowed)] == []
        assert {("warning", "field_absent"), ("info", "json_null_unknown")} <= findings(restored.out)
        assert (("info", "line_ends_unknown") in findings(restored.out)) is (form == "xml")
        assert new.run("validate_restore", str(fixture), "--allow-extra").code == 0


def test_natural_primary_keeps_all_but_the_keys_that_nothing_gives_back(
    new_system: Callable[..., System], tmp_path: Path
) -> None:
    with new_system("sqlite", AWKWARD).active() as old:
        from tests.awkward import models, rows

        rows.populate("sqlite", own=False)
        models.Dangling.objects.all().delete()
        models.RefersToTwin.objects.all().delete()
        fixture = dump(tmp_path / "f", "awkward", "--all", *STYLES["natural-foreign+natural-primary"])
        shown = json.loads(old.run("inspect_backup", str(fixture), "--json").out)
        assert sum(one["without_primary_key"] for one in shown["models"]) > 0
    with new_system("sqlite", AWKWARD).active() as new:
        rows.make_unmanaged_table()
        refused = new.run("convert_backup", str(fixture), "--json")
        errors = {
            (one["code"], one["model"]) for one in json.loads(refused.out)["findings"] if one["severity"] == "error"
        }
        assert errors == {
            ("primary_key_absent", "awkward.codekey"),
            ("primary_key_absent", "awkward.uuidkey"),
            ("reference_by_key_only", "awkward.linkedkey"),
            ("reference_by_key_only", "awkward.linkedtwice"),
            ("reference_by_key_only", "awkward.tag"),
        }
