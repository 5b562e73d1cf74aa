"""Files that are not packages, such as the fixtures of dumpdata, are restored like packages, or refused by name."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command

from backups.package.foreign import contents, recognise
from backups.records.values import EXACT_DECODER
from core.models import AuditEvent
from documents.models import Document, DocumentType
from tests import oracle
from tests.backups.conftest import TRAIL, nothing_changes
from tests.systems import System
from workflows.models import DocumentWorkflow

STYLES: dict[str, list[str]] = {
    "pk": [],
    "natural-foreign": ["--natural-foreign"],
    "natural-foreign+natural-primary": ["--natural-foreign", "--natural-primary"],
}


def compress(data: bytes, how: str) -> bytes:
    if how == "zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("fixture.json", data)
        return buffer.getvalue()
    return {"plain": bytes, "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[how](data)


def dump(path: Path, *arguments: str, form: str = "json", how: str = "plain") -> Path:
    """Write a fixture under a name that says nothing."""
    out = io.StringIO()
    call_command("dumpdata", *arguments, format=form, stdout=out)
    path.write_bytes(compress(out.getvalue().encode(), how))
    return path


def relations() -> dict[str, Any]:
    """What refers to what, in words that no primary key is among."""
    return {
        "authors": sorted(Document.objects.values_list("number", "author__username", "document_type__code")),
        "reviewers": [
            (document.number, [user.username for user in document.reviewers.order_by("username")])
            for document in Document.objects.order_by("number")
        ],
        "current": sorted(Document.objects.values_list("number", "current_version__major"), key=str),
        "workflows": sorted(DocumentWorkflow.objects.values_list("document__number", "initiator__username"), key=str),
        "groups": sorted(get_user_model().objects.values_list("username", "groups__name"), key=str),
        "managers": sorted(get_user_model().objects.values_list("username", "manager__username"), key=str),
    }


def findings(out: str) -> set[tuple[str, str]]:
    return {(one["severity"], one["code"]) for one in json.loads(out)["findings"]}


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
def test_a_fixture_survives_reinitialisation(system: System, tmp_path: Path, form: str, style: str, how: str) -> None:
    if form == "yaml":
        pytest.importorskip("yaml")
    assert system.run("seed_demo").code == 0
    before = relations()
    # Without its primary keys, nothing in a file says what an entry of the audit trail is about.
    left_out = ["--exclude", "core.auditevent"] if "primary" in style else []
    fixture = dump(tmp_path / "old", *STYLES[style], *left_out, form=form, how=how)
    assert system.run("reinit_system", "--no-input").code == 0
    assert Document.objects.count() == 0

    restored = system.run("restore_backup", str(fixture), "--json", "--no-input")

    assert restored.code == 0, restored.out[-3000:] + restored.err[-2000:]
    assert get_user_model().objects.count() == 10
    assert Document.objects.count() == 5
    assert DocumentWorkflow.objects.count() == 4
    assert relations() == before
    assert ("warning", "files_absent") in findings(restored.out)
    assert (("info", "primary_key_absent") in findings(restored.out)) is ("primary" in style)
    assert (("warning", "precision_reduced") in findings(restored.out)) is form.startswith("json")
    validated = system.run("validate_restore", str(fixture), "--allow-extra")
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


def write(path: Path, *objects: dict[str, Any]) -> Path:
    path.write_text(json.dumps(objects))
    return path


def user(name: str, pk: int | None, **fields: Any) -> dict[str, Any]:
    one = {"model": "core.user", "fields": {"username": name, "password": "!", **USER, **fields}}
    return one if pk is None else {**one, "pk": pk}


USER = {
    "last_login": None,
    "is_superuser": False,
    "first_name": "",
    "last_name": "",
    "email": "",
    "is_staff": False,
    "is_active": True,
    "date_joined": "2026-01-02T03:04:05.678Z",
    "employee_id": None,
    "department": "",
    "job_title": "",
    "manager": None,
    "groups": [],
    "user_permissions": [],
}
TYPE = {
    "model": "documents.documenttype",
    "pk": 900,
    "fields": {"code": "NEW", "name": "New", "description": "", "review_months": 3},
}


def document(number: str, pk: int, author: Any, **fields: Any) -> dict[str, Any]:
    values = {
        "number": number,
        "title": number,
        "document_type": 900,
        "status": "draft",
        "author": author,
        "reviewers": [],
        "supersedes": None,
        "current_version": None,
        "effective_date": None,
        "review_date": None,
        "metadata": {},
        "created": "2026-01-02T03:04:05.678Z",
        "modified": "2026-01-02T03:04:05.678Z",
    }
    return {"model": "documents.document", "pk": pk, "fields": {**values, **fields}}


@pytest.fixture
def lite(new_system: Callable[..., System]) -> Iterator[System]:
    with new_system("sqlite").active() as active:
        yield active


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


def test_models_and_fields_that_no_longer_exist_are_mapped_or_refused(lite: System, tmp_path: Path) -> None:
    old = {**TYPE, "model": "paper.kind", "fields": {**TYPE["fields"], "colour": "red", "label": "Newer"}}
    del old["fields"]["name"]
    fixture = write(tmp_path / "f", old)
    with nothing_changes(lite):
        refused = lite.run("restore_backup", str(fixture), "--json", "--no-input")
    assert refused.code == 3
    assert ("error", "model_unknown") in findings(refused.out)
    model = ["--map", "paper.kind=documents.documenttype"]
    with nothing_changes(lite):
        refused = lite.run("restore_backup", str(fixture), "--json", "--no-input", *model)
    assert refused.code == 3
    assert {("error", "field_unknown"), ("error", "field_absent")} <= findings(refused.out)

    fields = ["--map", "documents.documenttype.label=name", "--map", "documents.documenttype.colour="]
    restored = lite.run("restore_backup", str(fixture), "--json", "--no-input", *model, *fields)
    assert restored.code == 0, restored.out
    assert ("warning", "field_left_out") in findings(restored.out)
    assert DocumentType.objects.get(code="NEW").name == "Newer"

    left_out = lite.run("restore_backup", str(fixture), "--json", "--no-input", "--map", "paper.kind=")
    assert left_out.code == 0
    assert findings(left_out.out) == {("warning", "model_left_out")}
    assert lite.run("restore_backup", str(fixture), "--no-input", "--map", "paper.kind=no.model").code == 2
    assert lite.run("restore_backup", str(fixture), "--no-input", "--map", "paper").code == 2


def test_fields_that_are_absent_take_only_defaults_that_are_always_the_same(lite: System, tmp_path: Path) -> None:
    short = {**TYPE, "fields": {"code": "NEW", "name": "New", "description": ""}}
    restored = lite.run("restore_backup", str(write(tmp_path / "f", short)), "--json", "--no-input")
    assert restored.code == 0, restored.out
    assert findings(restored.out) == {("warning", "field_absent")}
    assert DocumentType.objects.get(code="NEW").review_months == 24

    without_time = document("NEW-1", 5, ["nobody"])
    del without_time["fields"]["created"]  # its default is the present time, which would be made up
    with nothing_changes(lite):
        refused = lite.run("restore_backup", str(write(tmp_path / "g", without_time)), "--json", "--no-input")
    assert refused.code == 3
    assert ("error", "field_absent") in findings(refused.out)


def test_values_that_no_field_takes_and_keys_given_twice_are_refused(lite: System, tmp_path: Path) -> None:
    wrong = {**TYPE, "pk": 901, "fields": {**TYPE["fields"], "code": "B", "review_months": "soon"}}
    with nothing_changes(lite):
        refused = lite.run("restore_backup", str(write(tmp_path / "f", TYPE, wrong, TYPE)), "--json", "--no-input")
    assert refused.code == 3
    assert findings(refused.out) == {("error", "value_invalid"), ("error", "primary_key_twice")}
    assert "object 2, line 1" in refused.out

    secrets = write(
        tmp_path / "g", user("adam", 700, password=["hunter2"]), user("eve", 701, password={"a": "hunter2"})
    )
    refused = lite.run("convert_backup", str(secrets))
    assert refused.code == 3
    assert "[redacted]" in refused.out
    assert "hunter2" not in refused.out


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b'[{"model": "core.user", "pk": 1, "fields": {}},\n {"model": "core.user", "pk"', "line 2"),
        (b'[{"model": "core.user",\n "pk" 1}]', "line 2"),
        (b'[{"model": "core.user"}\n{"model": "core.user"}]', "line 2"),
        (b'[{"model": "core.user"},\n7]', "object 2, line 2"),
        (b"[] []", "line 1"),
        (b'{"model": "core.user", "pk": 1, "fields": {}}\n{"model": ', "line 2"),
        (b'{"tables": ["core_user"]}', "line 1"),
        (b'[{"model": "core.user", "fields": {"username": "\xff"}}]', "line 1"),
        (b'<?xml version="1.0"?>\n<django-objects version="1.0">\n<object model="core.user"><field', "line 3"),
        (b'<?xml version="1.0"?>\n<django-objects version="2.0">', "line 2"),
        (b'<?xml version="1.0"?>\n<!DOCTYPE a [<!ENTITY b "c">]><django-objects version="1.0"/>', "line 2"),
        (b"- model: core.user\n  fields: {username: 'open\n", "line 3"),
        (b"- model: core.user\n- 7\n", "object 2, line 2"),
        (b"--- !!python/object:os.system {}\n", "line 1"),
        (gzip.compress(b"[]" * 2000, mtime=0)[:-9], "cannot be read"),
        (gzip.compress(b"[" + b" " * 9000 + b"]", mtime=0)[:-6] + b"\0" * 6, "cannot be read"),
        (b"[" * 100_000, "line 1"),
        (b"Dear colleague", "not a package or fixture"),
        (b"", "not a package or fixture"),
        (b"\x89PNG\r\n", "not a package or fixture"),
    ],
)
def test_damaged_and_unknown_content_is_told_with_its_place(
    lite: System, tmp_path: Path, content: bytes, place: str
) -> None:
    if content.startswith(b"-"):
        pytest.importorskip("yaml")
    (tmp_path / "f").write_bytes(content)
    for command in ("restore_backup", "validate_restore", "inspect_backup", "convert_backup"):
        with nothing_changes(lite):
            refused = lite.run(command, str(tmp_path / "f"))
        assert refused.code == 4, (command, refused.err)
        assert place in refused.err


def test_a_zip_of_several_files_is_no_fixture(lite: System, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "f", "w") as archive:
        archive.writestr("a.json", "[]")
        archive.writestr("b.json", "[]")
    refused = lite.run("restore_backup", str(tmp_path / "f"), "--no-input")
    assert (refused.code, "archive of 2 files" in refused.err) == (4, True)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_fixture_that_a_shell_wrote_is_read(lite: System, tmp_path: Path, encoding: str) -> None:
    one = {**TYPE, "fields": {**TYPE["fields"], "name": "Prüfung 😀"}}
    (tmp_path / "f").write_text(json.dumps([one], ensure_ascii=False, indent=1), encoding=encoding)
    restored = lite.run("restore_backup", str(tmp_path / "f"), "--no-input")
    assert restored.code == 0, restored.out + restored.err
    assert DocumentType.objects.get(code="NEW").name == "Prüfung 😀"


def migration_package(path: Path, fixture: Path, media: Path, *, top: str = "") -> Path:
    def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
        entry = tarfile.TarInfo(f"{top}{name}")
        entry.size, entry.mode = len(data), 0o640
        archive.addfile(entry, io.BytesIO(data))

    with tarfile.open(path, "w:gz") as archive:
        add(archive, "metadata.json", b'{"version": "1.0"}')
        add(archive, "database/database_backup.json", fixture.read_bytes())
        add(archive, "configuration/.env", b"SECRET=1\n")
        add(archive, "scripts/restore.sh", b"#!/bin/sh\n")
        for file in sorted(media.rglob("*")):
            if file.is_file():
                add(archive, f"storage/{file.relative_to(media)}", file.read_bytes())
    return path


@pytest.mark.parametrize("top", ["", "./", "edms_migration_2025/"])
def test_a_migration_package_brings_rows_files_and_configuration(lite: System, tmp_path: Path, top: str) -> None:
    assert lite.run("seed_demo").code == 0
    before, stored = relations(), oracle.files(lite.media)
    package = migration_package(tmp_path / "old.json", dump(tmp_path / "f"), lite.media, top=top)
    assert lite.run("reinit_system", "--no-input").code == 0
    assert oracle.files(lite.media) != stored

    restored = lite.run("restore_backup", str(package), "--json", "--no-input", "--config-to", str(tmp_path / "etc"))

    assert restored.code == 0, restored.out[-3000:] + restored.err
    assert findings(restored.out) >= {("warning", "member_unknown")}
    assert "file_missing" not in restored.out
    assert relations() == before
    assert oracle.files(lite.media) == stored
    assert (tmp_path / "etc" / ".env").read_text() == "SECRET=1\n"
    validated = lite.run("validate_restore", str(package), "--allow-extra")
    assert validated.code == 0, validated.out[-3000:]
    inspected = lite.run("inspect_backup", str(package), "--json")
    assert json.loads(inspected.out)["files"] == len(stored)
    assert json.loads(inspected.out)["metadata"] == {"version": "1.0"}


@pytest.mark.parametrize("name", ["storage/../../evil", "/storage/evil", "link"])
def test_a_migration_package_that_leads_out_of_itself_is_refused(lite: System, tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "f", "w:gz") as archive:
        entry = tarfile.TarInfo(name)
        if name == "link":
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(entry, io.BytesIO(b""))
    with nothing_changes(lite):
        refused = lite.run("restore_backup", str(tmp_path / "f"), "--no-input")
    assert refused.code == 4
    empty = tmp_path / "empty"
    with tarfile.open(empty, "w") as archive:
        archive.addfile(tarfile.TarInfo("readme"))
    refused = lite.run("inspect_backup", str(empty))
    assert (refused.code, "not a package or fixture" in refused.err) == (4, True)


def test_convert_backup_writes_a_package_and_tells_what_is_not_in_it(lite: System, tmp_path: Path) -> None:
    assert lite.run("seed_demo").code == 0
    fixture, output = dump(tmp_path / "f"), tmp_path / "out.zip"
    converted = lite.run("convert_backup", str(fixture), "--output", str(output), "--json")
    assert converted.code == 0, converted.out + converted.err
    report = json.loads(converted.out)
    assert (report["operation"], report["verdict"], report["package"]) == ("convert", "proved", str(output))
    assert {model["model"]: model["package"] for model in report["models"]}["documents.document"] == 5
    assert ("warning", "precision_reduced") in findings(converted.out)
    inspected = lite.run("inspect_backup", str(output))
    assert (inspected.code, "from fixture json" in inspected.out) == (0, True)
    assert lite.run("reinit_system", "--no-input").code == 0
    assert lite.run("restore_backup", str(output), "--no-input").code == 0
    assert Document.objects.count() == 5

    again = lite.run("convert_backup", str(output))
    assert (again.code, "is a package already" in again.err) == (2, True)
    stored = lite.run("convert_backup", str(fixture))
    assert stored.code == 0
    assert f"files are in {fixture}.zip" in stored.out
    assert (tmp_path / "f.zip").read_bytes()[:2] == b"PK"
    overwriting = lite.run("convert_backup", str(fixture))
    assert (overwriting.code, "exists" in overwriting.err) == (2, True)
    assert len(list(lite.packages.glob("backup-*"))) == 0
    with nothing_changes(lite):
        refused = lite.run("convert_backup", str(write(tmp_path / "g", {**TYPE, "model": "no.model"})))
    assert (refused.code, "not converted: 1 error" in refused.out) == (3, True)


def test_inspect_backup_tells_the_style_of_a_fixture(lite: System, tmp_path: Path) -> None:
    fixture = write(tmp_path / "f", user("adam", None, manager=["admin"]), TYPE, {**TYPE, "model": "no.model"})
    inspected = lite.run("inspect_backup", str(fixture), "--json")
    assert inspected.code == 0
    shown = json.loads(inspected.out)
    assert (shown["format"], shown["compression"], shown["references"]) == ("json", "", "natural keys")
    assert [(one["model"], one["known_as"], one["objects"], one["without_primary_key"]) for one in shown["models"]] == [
        ("core.user", "core.user", 1, 1),
        ("documents.documenttype", "documents.documenttype", 1, 0),
        ("no.model", "", 1, 0),
    ]
    text = lite.run("inspect_backup", str(fixture)).out
    assert "fixture: json, not compressed, references: natural keys" in text


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


def test_a_large_fixture_is_read_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "f"
    blank = "x" * 1000
    with gzip.open(path, "wt") as file:
        file.write("[")
        for number in range(50_000):
            one = {"model": "core.user", "pk": number, "fields": {"username": f"u{number}", "job_title": blank}}
            file.write(("," if number else "") + json.dumps(one))
        file.write("]")
    foreign = recognise(path)
    assert foreign is not None
    tracemalloc.start()
    count = sum(1 for _ in contents(foreign, EXACT_DECODER))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 50_000
    assert peak < 4 * 1024 * 1024  # of 55 MB


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


def test_generic_references_follow_their_rows_to_other_keys(system: System, tmp_path: Path) -> None:
    assert system.run("seed_demo").code == 0
    before = {event.hash: event.target.number for event in AuditEvent.objects.filter(content_type__model="document")}
    fixture = dump(tmp_path / "f")
    assert system.run("reinit_system", "--no-input").code == 0
    kind = DocumentType.objects.create(code="ZZZ", name="in the way")
    admin = get_user_model().objects.order_by("pk").first()
    for _ in range(3):
        Document.objects.create(title="in the way", document_type=kind, author=admin)
    restored = system.run("restore_backup", str(fixture), "--json", "--no-input")
    assert restored.code == 0, restored.out[-3000:]
    assert before
    assert {event.hash: event.target.number for event in AuditEvent.objects.filter(hash__in=before)} == before


def test_a_renamed_model_is_renamed_in_content_types_too(lite: System, tmp_path: Path) -> None:
    content_type = {"model": "contenttypes.contenttype", "pk": 77, "fields": {"app_label": "paper", "model": "sheet"}}
    sheet = {**document("NEW-1", 5, 700), "model": "paper.sheet"}
    event = {
        "hash": "a" * 64,
        "previous": [],
        "time": "2026-01-02T03:04:05.678Z",
        "actor": 700,
        "actor_name": "adam",
        "action": "seen",
        "object_id": "5",
        "object_type": "sheet",
        "object_key": [],
        "details": {},
    }
    by_key = {"model": "core.auditevent", "pk": 1, "fields": {**event, "content_type": 77}}
    natural = {
        "model": "core.auditevent",
        "pk": 2,
        "fields": {**event, "hash": "b" * 64, "content_type": ["paper", "sheet"]},
    }
    Document.objects.create(
        title="on key 5", document_type=DocumentType.objects.first(), author=get_user_model().objects.first(), pk=5
    )
    fixture = write(tmp_path / "f", content_type, user("adam", 700), TYPE, sheet, by_key, natural)
    restored = lite.run(
        "restore_backup", str(fixture), "--json", "--no-input", "--map", "paper.sheet=documents.document"
    )
    assert restored.code == 0, restored.out[-3000:]
    targets = [one.target.number for one in AuditEvent.objects.filter(action="seen")]
    assert targets == ["NEW-1", "NEW-1"]


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
