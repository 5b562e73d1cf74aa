"""What somebody has made to do harm, and what the fuzzers have found, is refused by exit code and in words."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import pytest
from django.contrib.sessions.models import Session

from backups.errors import PackageDamaged
from backups.models import Backup
from backups.package.container import ContainerWriter
from backups.package.reader import PackageReader
from backups.records.record import parse
from backups.records.table import Table
from core.models import AuditEvent
from tests.backups.conftest import nothing_changes
from tests.benchmarks import processes
from tests.benchmarks.processes import Pipeline
from tests.systems import System

HOSTILE = Path(__file__).parent.parent / "golden" / "hostile"
IDENTITY = HOSTILE.parent / "keys" / "identity.txt"

LEAVES_OUT = "packages leave this model out here"
LINES = "data/auth.group/00000.jsonl.zst does not hold the lines that the manifest says"
OUTCOMES = {
    "age-header-without-end.zip.age": (4, "the header of the encrypted package is damaged"),
    "age-without-body.zip.age": (4, "the header of the encrypted package is damaged"),
    "archive-absolute.tar.gz": (4, "a member that leads out of it: '/storage/escaped'"),
    "archive-device.tar.gz": (4, "'storage/a' is neither a file nor a directory"),
    "archive-ends-early.tar": (4, "cannot be read"),
    "archive-file-twice.tar.gz": (4, "storage/a is there twice"),
    "archive-header-bomb.tar.gz": (4, "a header of 838860800 bytes"),
    "archive-negative.tar.gz": (4, "a header of -256 bytes"),
    "archive-sparse.tar.gz": (4, "'storage/x' is neither a file nor a directory"),
    "archive-symbolic-link.tar.gz": (4, "'storage/a' is neither a file nor a directory"),
    "archive-traversal.tar.gz": (4, "a member that leads out of it: 'storage/../../escaped'"),
    "bomb-brackets.zip": (4, "a record of data/auth.group/00000.jsonl.zst has more than 20000000 values"),
    "bomb-inflates.zip": (4, LINES),
    "bomb-lines.zip": (4, "data/auth.group/00000.jsonl.zst cannot have 67108864 lines"),
    "bomb-window.zip": (4, "data/auth.group/00000.jsonl.zst cannot be decompressed"),
    "config-file-and-directory.zip": (4, "a configuration file is a directory as well"),
    "field-template.zip": (5, "auth.group.{{ settings.SECRET_KEY }}{% load x %}: only in the package"),
    "file-absolute.zip": (4, "the package has a file '/tmp/escaped', which leads out of its storage"),
    "file-directory.zip": (4, "files.jsonl.zst has a name that no file has: '..'"),
    "file-null.zip": (4, "files.jsonl.zst has a name that no file has: 'a\\x00b'"),
    "file-storage-unknown.zip": (5, "the file 'escaped' belongs to storage 'backups', which no file field uses"),
    "file-traversal.zip": (4, "the package has a file '../../escaped', which leads out of its storage"),
    "fixture-aliases.yaml": (4, "nested too deep, or too large through aliases"),
    "fixture-bomb.json.bz2": (4, "unfolds to more than 250 times its size"),
    "fixture-deep.json": (4, "line 1: maximum recursion depth exceeded"),
    "fixture-deep.xml": (4, "line 1: an object is nested too deep"),
    "fixture-entities.xml": (4, "line 2: a fixture has no document type and no entities"),
    "fixture-python.yaml": (4, "line 3: could not determine a constructor for the tag"),
    "fixture-quine.gz": (4, "is not a package or fixture"),
    "fixture-session.json": (0, "model_excluded sessions.session"),
    "frame-skippable.zip": (4, LINES),
    "frames-two.zip": (4, LINES),
    "identity-twice.zip": (3, "unique_taken auth.group"),
    "label-sql.zip": (4, "a package has no member 'data/core.user; drop table core_user/00000.jsonl.zst'"),
    "label-upper.zip": (4, "a package has no member 'data/Core.User/00000.jsonl.zst'"),
    "manifest-deep.zip": (4, "manifest.json is not JSON"),
    "manifest-file-elsewhere.zip": (4, "config/lost is missing"),
    "manifest-huge-list.zip": (4, "manifest.json should have the keys"),
    "manifest-next-version.zip": (5, "format version 2"),
    "manifest-rows.zip": (4, "data/auth.group/00000.jsonl.zst cannot have 1000 lines"),
    "model-report.zip": (5, f"backups.backup: {LEAVES_OUT}"),
    "model-session.zip": (5, f"sessions.session: {LEAVES_OUT}"),
    "model-unknown.zip": (5, "core.nothing: the package has this model, the code does not"),
    "name-absolute.zip": (4, "a package has no member '/tmp/escaped'"),
    "name-control.zip": (4, "a package has no member 'config/a\\x1b[2Jb'"),
    "name-device.zip": (4, "a package has no member 'config/CON'"),
    "name-traversal.zip": (4, "a package has no member 'config/../../escaped'"),
    "primary-key-twice.zip": (4, "auth.group has the primary key 9001 twice"),
    "record-deep.zip": (3, "auth.group"),
    "record-field-unknown.zip": (4, "a record of auth.group with the primary key 1 cannot be one of its rows"),
    "record-key-no-number.zip": (4, "a record of auth.group with the primary key '1 OR 1=1' cannot be one of its rows"),
    "record-not-json.zip": (4, "a record of auth.group cannot be read"),
    "record-other-model.zip": (4, "a record among those of auth.group belongs to another model"),
    "record-wrong-type.zip": (3, "auth.group"),
    "reference-nowhere.zip": (3, "reference_missing auth.group_permissions"),
    "scrypt-beside-another.zip.age": (4, "the header of the encrypted package is damaged"),
    "scrypt-for-ever.zip.age": (4, "the header of the encrypted package is damaged"),
    "size-lie.zip": (4, "the header of config/a is damaged"),
    "symbolic-link.zip": (4, "the directory entry of data/core.user/00000.jsonl.zst is damaged"),
    "terminal-escapes.zip": (5, "auth.group.\\u001b]0;owned\\u0007\\u001b[2J\\u202etrusted: only in the package"),
    "zip-local-name-no-text.zip": (4, "zip-local-name-no-text.zip cannot be read"),
    "zip-name-no-text.zip": (4, "zip-name-no-text.zip cannot be read"),
    "zip-offset-beyond.zip": (4, "zip-offset-beyond.zip cannot be read"),
}


def test_each_hostile_file_has_an_outcome() -> None:
    assert {path.name for path in HOSTILE.iterdir()} == OUTCOMES.keys()


@pytest.mark.parametrize("name", OUTCOMES)
def test_a_hostile_file_is_refused(lite: System, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BACKUPS_PASSPHRASE", "correct horse")
    code, words = OUTCOMES[name]
    arguments = [str(HOSTILE / name), "--identity", str(IDENTITY)]
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with nothing_changes(lite):
        restored = lite.run("restore_backup", *arguments, "--config-to", str(tmp_path / "below" / "config"))
        assert restored.code == code, restored.err
        validated = lite.run("validate_restore", *arguments)
        inspected = lite.run("inspect_backup", *arguments)
    assert words in restored.err + restored.out
    for told in (restored, validated, inspected):
        assert not set("\x1b\x07\x9b\u202e") & set(told.out + told.err)
        assert "Traceback" not in told.err
    assert not list(tmp_path.rglob("*escaped*"))
    assert not Path("/tmp/escaped").exists()
    assert time.monotonic() - begun < 60
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 700 * 1024, f"{grown // 1024} MiB"  # KiB
    assert validated.code in {code, 0, 3}


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("keys", {"object_id": [["documents.document"], "SOP-1"]}),
        ("keys", {"object_id": ["document", "SOP-1"]}),
        ("keys", {"object_id": ["documents.nothing", "SOP-1"]}),
        ("keys", {"object_id": "documents.document"}),
        ("json_null", [["details"]]),
        ("json_null", [{}]),
        ("pk", 2**63),
        ("pk", -(2**63) - 1),
        ("refs", {"actor": 2**64}),
    ],
)
def test_a_record_of_odd_parts_cannot_be_a_row(part: str, value: object) -> None:
    table = Table(AuditEvent)
    with PackageReader(HOSTILE.parent / "edms-package-1.zip") as package:
        line = next(line for line in package.lines(table.label) if b'"keys":{"object_id"' in line)
    record = parse(line, table.label)
    table.require_shape(record)
    setattr(record, part, value)
    with pytest.raises(PackageDamaged, match="cannot be one of its rows"):
        table.require_shape(record)


@pytest.mark.parametrize(("name", "label"), [("session", "sessions.session"), ("report", "backups.backup")])
def test_what_packages_leave_out_stays_out_where_schemas_may_differ(lite: System, name: str, label: str) -> None:
    package = str(HOSTILE / f"model-{name}.zip")
    restored = lite.run("restore_backup", package, "--allow-schema-differences", "--no-safety-backup")
    assert restored.code == 0
    assert f"model_without_home {label}" in restored.out
    assert not Session.objects.exists()
    assert not Backup.objects.exists()


def test_very_many_members_are_refused_in_bounded_memory(shell: dict[str, str], tmp_path: Path) -> None:
    package, count = tmp_path / "many.zip", 100_000
    with package.open("wb") as file:
        writer = ContainerWriter(file)
        for number in range(count):
            writer.add(f"files/{number:064x}", 0, 0, [])
        writer.finish(b"{}")
    peaks = []
    for one, words in ((package, "does not say that this is a package"), (HOSTILE / "name-control.zip", "no member")):
        done = processes.run(
            Pipeline(stages=[[sys.executable, "manage.py", "inspect_backup", str(one)]], environment=shell)
        )
        assert words in done.err
        peaks.append(done.peak)
    assert peaks[0] - peaks[1] < 1024 * count
