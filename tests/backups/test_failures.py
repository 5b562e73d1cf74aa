"""Whatever goes wrong ends in a message, a hint and an exit code; never in a traceback, nor half-way."""

from __future__ import annotations

import io
import json
import os
import pty
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError
from django.db import OperationalError, connections
from django.dispatch import Signal
from django.test import override_settings

from backups import files
from backups.management.operate import failures_as_exit_codes
from backups.models import Backup, RestoreReport
from backups.services import restore as restore_service
from backups.signals import backup_created, restore_finished, system_reinitialised
from documents.models import Document, DocumentVersion
from tests import oracle
from tests.backups.conftest import nothing_changes
from tests.systems import System

MANAGE = [sys.executable, "manage.py"]
LOCKED = Path(__file__).parents[1] / "golden" / "edms-package-1-passphrase.zip.age"
SEALED = LOCKED.with_name("edms-package-1-signed.zip.age")


@pytest.fixture
def shell(new_system: Callable[..., System]) -> Iterator[dict[str, str]]:
    """The environment of a seeded SQLite system with one package, for commands in processes of their own."""
    with new_system("sqlite").active() as system:
        system.run("seed_demo")
        system.run("create_backup")
        yield {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "core.settings",
            "DATABASE_URL": f"sqlite:///{system.configuration['NAME']}",
            "MEDIA_ROOT": str(system.media),
            "BACKUPS_ROOT": str(system.packages),
        }


def run(environment: dict[str, str], *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*MANAGE, *command], env=environment, text=True, timeout=60, **options)
    assert "Traceback" not in (done.stderr or "")
    return done


@pytest.mark.parametrize(
    ("changes", "command", "code", "words"),
    [
        ({"DATABASE_URL": "sqlite:////nowhere/x.sqlite3"}, ("create_backup",), 1, "/nowhere"),
        ({"DATABASE_URL": "postgres://postgres@127.0.0.1:1/x"}, ("create_backup",), 1, "the database failed"),
        ({"DATABASE_URL": "postgres://postgres@127.0.0.1:1/x"}, ("recovery_drill",), 1, "the database failed"),
        ({}, ("reinit_system", "--no-input", "--database", "nowhere"), 2, "nowhere"),
        ({}, ("list_backups", "--database", "nowhere"), 2, "nowhere"),
        ({}, ("reinit_system",), 6, "--no-input"),
        ({"BACKUPS_ROOT": "/proc/nowhere"}, ("create_backup",), 1, "/proc/nowhere"),
        ({}, ("create_backup", "--output", "/nowhere/x.zip"), 2, "/nowhere"),
        ({}, ("create_backup", "--output", ""), 2, "is not a file"),
    ],
)
def test_a_failure_has_a_message_and_a_code(
    shell: dict[str, str], changes: dict[str, str], command: tuple[str, ...], code: int, words: str
) -> None:
    done = run(shell | changes, *command, capture_output=True, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr


def test_a_link_to_a_database_has_the_lock_of_that_database(shell: dict[str, str], tmp_path: Path) -> None:
    alias = tmp_path / "alias.sqlite3"
    alias.symlink_to(shell["DATABASE_URL"].removeprefix("sqlite:///"))
    with restore_service.databases.of("default").lock() as held:
        done = run(shell | {"DATABASE_URL": f"sqlite:///{alias}"}, "create_backup", capture_output=True)
    assert (held, done.returncode) == (True, 6)
    assert "another operation is running" in done.stderr
    assert list(tmp_path.glob("alias*")) == [alias]


def test_there_is_no_lock_where_there_can_be_no_database(shell: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    done = run(shell | {"DATABASE_URL": f"sqlite:///{tmp_path}/directory"}, "create_backup", capture_output=True)
    assert (done.returncode, "there can be no database" in done.stderr) == (1, True)
    assert not list(tmp_path.glob("directory.*"))


@pytest.mark.parametrize(
    ("command", "operation", "code", "words"),
    [
        (("restore_backup", "nowhere"), "restore", 2, "nowhere"),
        (("restore_backup", "latest", "--map", "foo"), "restore", 2, "foo"),
        (("inspect_backup", "nowhere"), "inspect", 2, "nowhere"),
        (("list_backups",), "list", 1, "a_file"),
    ],
)
def test_json_is_one_object_also_on_failure(
    shell: dict[str, str], tmp_path: Path, command: tuple[str, ...], operation: str, code: int, words: str
) -> None:
    (tmp_path / "a_file").touch()
    changes = {"BACKUPS_ROOT": str(tmp_path / "a_file")} if operation == "list" else {}
    done = run(shell | changes, *command, "--json", capture_output=True)
    report = json.loads(done.stdout)
    assert (done.returncode, report["verdict"], report["operation"]) == (code, "failed", operation)
    assert words in report["error"]


def test_a_file_that_stops_a_backup_is_a_finding_in_json(shell: dict[str, str]) -> None:
    next(path for path in Path(shell["MEDIA_ROOT"]).rglob("*") if path.is_file()).unlink()
    done = run(shell, "create_backup", "--json", capture_output=True)
    assert done.returncode == 3
    assert [finding["code"] for finding in json.loads(done.stdout)["findings"]] == ["file_missing"]


@pytest.mark.parametrize("streams", ["<&-", ">&-", "2>&-", ">&- 2>&-", ">/dev/full", "2>/dev/full", "2>&1 | true"])
@pytest.mark.parametrize(("command", "code"), [("create_backup", 0), ("restore_backup nowhere --json", 2)])
def test_streams_do_not_change_what_is_done(shell: dict[str, str], command: str, code: int, streams: str) -> None:
    line = f"set -o pipefail; {sys.executable} manage.py {command} {streams}"
    buffered = shell | {"PYTHONUNBUFFERED": ""}  # so that Python has something left to write as it ends
    done = subprocess.run(["bash", "-c", line], env=buffered, capture_output=True, text=True, timeout=60)
    assert done.returncode == code
    assert not any(words in done.stderr for words in ("Traceback", "Exception ignored"))


@pytest.mark.parametrize(
    "encoding",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}],
)
def test_what_an_encoding_lacks_is_written_out(shell: dict[str, str], encoding: dict[str, str]) -> None:
    Document.objects.filter(number="SOP-2026-0001").update(title="Sp\u00fclen \U0001f6bf")
    done = run(shell | encoding, "validate_restore", "latest", "--json", capture_output=True)
    assert done.returncode == 3
    assert "Sp\u00fclen \U0001f6bf" in [finding["found"] for finding in json.loads(done.stdout)["findings"]]
    assert "\\u00fc" in done.stdout


ON_A_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.mark.parametrize(
    ("command", "prompt", "keys"),
    [
        *((("reinit_system",), b"to go on: ", keys) for keys in (b"no\n", b"\x04", b"\x03")),
        *((("create_backup", "--passphrase"), b"for the package: ", keys) for keys in (b"\x04", b"\x03")),
    ],
)
def test_an_operator_who_does_not_answer_cancels(
    shell: dict[str, str], command: tuple[str, ...], prompt: bytes, keys: bytes
) -> None:
    ours, theirs = pty.openpty()
    started = [sys.executable, "-c", ON_A_TERMINAL, "manage.py", *command]
    with subprocess.Popen(started, env=shell, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while prompt not in shown:
            shown += os.read(ours, 4096)
        try:
            for _ in range(30):
                os.write(ours, keys)  # again, where Python had shown the prompt and was not yet reading
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=1)
                    break
            assert process.wait(timeout=1) == 7
        finally:
            process.kill()
    with suppress(OSError):  # which is how a terminal ends
        while more := os.read(ours, 4096):
            shown += more
    assert b"cancelled; nothing has changed" in shown
    os.close(ours)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (sqlite3.OperationalError("database or disk is full"), "the temporary directory {place} is full"),
        (sqlite3.OperationalError("unable to open database file"), "the temporary directory {place} cannot be used"),
        (OSError(28, "No space left on device"), "TMPDIR"),
        (MemoryError(), "memory"),
        (RuntimeError("can't start new thread"), "no thread"),
        (UnicodeEncodeError("utf-8", "secret\udcfe", 6, 7, "surrogates not allowed"), "not UTF-8"),
    ],
)
def test_what_the_system_does_not_give_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, words: str
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    out = io.StringIO()
    with pytest.raises(CommandError) as raised, failures_as_exit_codes({"json": True, "stdout": out}, "restore"):
        raise error
    assert raised.value.returncode == 1
    assert words.format(place=tmp_path) in str(raised.value)
    assert "hint:" in str(raised.value)
    assert json.loads(out.getvalue())["verdict"] == "failed"
    assert "secret" not in f"{raised.value}{out.getvalue()}"


def test_a_mistake_of_ours_is_a_document_and_a_traceback() -> None:
    out = io.StringIO()
    with pytest.raises(ZeroDivisionError), failures_as_exit_codes({"json": True, "stdout": out}, "restore"):
        raise ZeroDivisionError
    assert json.loads(out.getvalue())["error"] == "ZeroDivisionError"


@pytest.mark.parametrize(
    ("variables", "command", "named"),
    [
        ({"BACKUPS_PASSPHRASE": "secret\udcfe"}, ("create_backup", "--passphrase"), "BACKUPS_PASSPHRASE"),
        ({"BACKUPS_PASSPHRASE": "secret\udcfe"}, ("inspect_backup", str(LOCKED)), "BACKUPS_PASSPHRASE"),
        ({"BACKUPS_IDENTITY": "secret\udcfe"}, ("inspect_backup", str(SEALED)), "BACKUPS_IDENTITY"),
        ({}, ("create_backup", "--encrypt-to", "secret\udcfe"), "encrypt-to"),
        ({}, ("inspect_backup", "secret\udcfe.zip"), "package"),
    ],
)
def test_what_is_not_utf8_is_named_and_not_repeated(
    shell: dict[str, str], variables: dict[str, str], command: tuple[str, ...], named: str
) -> None:
    done = run(shell | variables, *command, capture_output=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{named} " in done.stderr
    assert "is not UTF-8" in done.stderr
    assert "secret" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_lost_connection_ends_an_operation_as_ctrl_c_does(
    number: signal.Signals, request: pytest.FixtureRequest
) -> None:
    cleaned = []
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore it
    request.addfinalizer(lambda: signal.signal(signal.SIGHUP, before))

    def operate() -> None:
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(signal.SIGHUP)  # a terminal that goes away says so more than once
            cleaned.append(True)

    with pytest.raises(CommandError) as raised, failures_as_exit_codes({}, "create"):
        operate()
    assert raised.value.returncode == 7
    assert cleaned


def test_what_a_driver_says_of_an_interrupted_statement_is_no_failure() -> None:
    def operate() -> None:
        try:
            raise KeyboardInterrupt
        finally:
            try:
                int("commands out of sync")
            except ValueError as error:
                raise OperationalError("commands out of sync") from error

    with pytest.raises(CommandError) as raised, failures_as_exit_codes({}, "create"):
        operate()
    assert raised.value.returncode == 7


def test_who_ignores_hangups_goes_on() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with failures_as_exit_codes({}, "create"):
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_media_directory_that_cannot_be_written_rolls_everything_back(
    seeded: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    Document.objects.update(title="edited")
    name = DocumentVersion.objects.first().file.name  # type: ignore[union-attr]
    (seeded.media / name).write_bytes(b"edited")

    def refuse(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied", name)

    with monkeypatch.context() as patch, nothing_changes(seeded):
        patch.setattr(files, "_make_directories", refuse)
        restored = seeded.run("restore_backup", "latest")
    assert restored.code == 1
    assert "Permission denied" in restored.err
    assert seeded.run("restore_backup", "latest").code == 0


def test_a_file_that_cannot_be_removed_keeps_the_rows(seeded: System, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    with nothing_changes(seeded), monkeypatch.context() as patch:
        patch.setattr(files.FileChanges, "_move", refuse)
        assert seeded.run("reinit_system", "--no-input", "--no-safety-backup").code == 1
    assert seeded.run("reinit_system", "--no-input").code == 0
    assert not [path for path in seeded.media.rglob("*") if path.is_file()]


def test_what_comes_after_the_commit_does_not_undo_the_work(seeded: System, monkeypatch: pytest.MonkeyPatch) -> None:
    Document.objects.update(title="edited")
    (seeded.media / DocumentVersion.objects.first().file.name).write_bytes(b"edited")  # type: ignore[union-attr]
    exclusive = restore_service.databases.of("default").__class__.exclusive

    def interrupted(self: object, tables: object) -> Any:
        return _then_interrupted(exclusive(self, tables))

    monkeypatch.setattr(restore_service.databases.of("default").__class__, "exclusive", interrupted)
    restored = seeded.run("restore_backup", "latest")

    assert restored.code == 0
    assert "warning unfinished : the restore is done and proved; after that, the end of the tr" in restored.out
    assert not Document.objects.filter(title="edited").exists()
    safety = RestoreReport.objects.get(operation="restore").options["safety_backup"]
    assert (seeded.packages / safety).is_file()
    assert Backup.objects.filter(name=safety).exists()
    assert seeded.run("validate_restore", "latest").code == 0


class _then_interrupted:  # noqa: N801
    def __init__(self, context: Any) -> None:
        self.context = context

    def __enter__(self) -> Any:
        return self.context.__enter__()

    def __exit__(self, *error: Any) -> None:
        self.context.__exit__(*error)
        if error[0] is None:
            raise KeyboardInterrupt


@pytest.mark.parametrize("committed", [True, False])
def test_files_of_a_process_that_died_are_brought_to_an_end(seeded: System, committed: bool) -> None:
    version = DocumentVersion.objects.first()
    assert version is not None
    path = seeded.media / version.file.name
    before = path.read_bytes()
    report = RestoreReport.objects.get()
    RestoreReport.objects.filter(pk=report.pk).update(state="running", committed=committed)
    changes = files.FileChanges(report.pk.hex, {"default": version.file.storage})
    changes.write("default", version.file.name, [b"new"])
    changes.write("default", "created/new.txt", [b"created"])
    changes.apply()
    assert path.read_bytes() == b"new"

    assert seeded.run("validate_restore", "latest").code == (3 if committed else 0)

    assert path.read_bytes() == (b"new" if committed else before)
    assert (seeded.media / "created").exists() is committed
    assert not list(seeded.media.glob(".changes-*"))
    ended = RestoreReport.objects.get(pk=report.pk)
    assert ended.state == "interrupted"
    assert ("after" if committed else "before") + " the commit" in ended.error


def test_a_file_that_somebody_made_meanwhile_is_not_taken_back(seeded: System) -> None:
    storage = DocumentVersion.objects.first().file.storage  # type: ignore[union-attr]
    changes = files.FileChanges("key", {"default": storage})
    changes.write("default", "one.txt", [b"ours"])
    changes.write("default", "two.txt", [b"ours"])
    changes.apply()
    for name in ("one.txt", "two.txt"):  # as if the process had died between the two
        (seeded.media / name).replace(seeded.media / f".changes-key/{int(name == 'two.txt')}")
    (seeded.media / ".changes-key/0").replace(seeded.media / "one.txt")
    (seeded.media / "two.txt").write_bytes(b"theirs")

    files.FileChanges("key", {"default": storage}).take_back()

    assert not (seeded.media / "one.txt").exists()
    assert (seeded.media / "two.txt").read_bytes() == b"theirs"


@pytest.fixture
def elsewhere(lite: System) -> Iterator[Path]:
    """A directory on another file system with the files of a seeded system, which has a package of them."""
    assert (lite.run("seed_demo").code, lite.run("create_backup").code) == (0, 0)
    inside = lite.media / "documents"
    places = [place for place in map(Path, ("/dev/shm", "/var/tmp")) if place.is_dir()]
    others = [place for place in places if place.stat().st_dev != inside.stat().st_dev]
    if not others:
        pytest.skip(f"NO OTHER FILE SYSTEM THAN THE TESTS': {places}")
    with tempfile.TemporaryDirectory(dir=others[0]) as directory:
        moved = shutil.move(inside, directory)
        inside.symlink_to(moved)
        yield Path(moved)


def test_files_on_another_file_system_are_removed_and_restored(lite: System, elsewhere: Path) -> None:
    before = oracle.files(elsewhere)
    assert lite.run("reinit_system", "--no-input").code == 0
    assert list(elsewhere.iterdir()) == []
    for mode in ("merge", "replace"):
        result = lite.run("restore_backup", "latest", "--no-input", "--mode", mode)
        assert result.code == 0, result.err
        assert oracle.files(elsewhere) == before
        next(path for path in elsewhere.rglob("*") if path.is_file()).write_bytes(b"edited")
    assert lite.run("restore_backup", "latest").code == 0
    assert oracle.files(elsewhere) == before
    assert lite.run("restore_backup", "--undo", "--no-input").code == 0
    assert not list(lite.directory.rglob(".changes-*")) + list(elsewhere.rglob(".changes-*"))


class _Killed(BaseException):
    pass


def test_files_on_another_file_system_are_taken_back_wherever_the_process_died(
    lite: System, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = DocumentVersion.objects.first().file.storage  # type: ignore[union-attr]
    replaced, removed = sorted(path for path in elsewhere.rglob("*") if path.is_file())[:2]
    replaced.chmod(0o640)
    before, steps = _kept(elsewhere), 0

    def counted(original: Callable[..., Any], left: list[int]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if not left[0]:
                raise _Killed
            left[0] -= 1
            return original(*arguments, **options)

        return call

    def die_after(count: int, work: Callable[[], object]) -> bool:
        """Do the work up to one step that changes a place; return whether it was killed."""
        with monkeypatch.context() as patch:
            left = [count]
            for owner, name in [(Path, "replace"), (Path, "unlink"), (files.shutil, "copy2"), (files.os, "fsync")]:
                patch.setattr(owner, name, counted(getattr(owner, name), left))
            try:
                work()
            except _Killed:
                return True
            return False

    def staged() -> files.FileChanges:
        changes = files.FileChanges("key", {"default": storage})
        changes.write("default", f"documents/{replaced.relative_to(elsewhere)}", [b"new"])
        changes.write("default", "documents/created/new.txt", [b"created"])
        changes.remove("default", f"documents/{removed.relative_to(elsewhere)}")
        return changes

    while die_after(steps, staged().apply):
        again = 0
        while die_after(again, files.FileChanges("key", {"default": storage}).take_back):
            again += 1
        assert _kept(elsewhere) == before, (steps, again)
        assert not list(lite.media.glob(".changes-*"))
        steps += 1
    assert steps > 12
    assert replaced.read_bytes() == b"new"


def _kept(directory: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(directory)): (path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in directory.rglob("*")
    }


def test_a_temporary_file_that_stays_is_told(seeded: System, monkeypatch: pytest.MonkeyPatch) -> None:
    (seeded.media / DocumentVersion.objects.first().file.name).write_bytes(b"edited")  # type: ignore[union-attr]

    def refuse(path: Path, onerror: Callable[..., None]) -> None:
        onerror(None, str(path), None)

    monkeypatch.setattr(files.shutil, "rmtree", refuse)
    restored = seeded.run("restore_backup", "latest")

    assert restored.code == 0
    assert "warning temporary_left" in restored.out
    assert ".changes-" in restored.out


def test_a_receiver_that_fails_is_a_finding(seeded: System) -> None:
    def fail(**arguments: object) -> None:
        raise RuntimeError("no audit today")

    restore_finished.connect(fail)
    try:
        restored = seeded.run("restore_backup", "latest")
    finally:
        restore_finished.disconnect(fail)
    assert restored.code == 0
    assert "warning receiver_failed" in restored.out
    assert "no audit today" in restored.out


@pytest.mark.parametrize(
    ("signal", "command"),
    [
        (restore_finished, ("restore_backup", "latest")),
        (system_reinitialised, ("reinit_system", "--no-input")),
        (backup_created, ("create_backup",)),
    ],
)
def test_what_is_done_is_not_cancelled_by_who_interrupts_its_end(
    seeded: System, signal: Signal, command: tuple[str, ...]
) -> None:
    Document.objects.update(title="edited")

    def interrupt(**arguments: object) -> None:
        raise KeyboardInterrupt

    signal.connect(interrupt)
    try:
        done = seeded.run(*command, "--json")
    finally:
        signal.disconnect(interrupt)

    report = json.loads(done.out)
    stored = RestoreReport.objects.get(pk=report["id"])
    assert (done.code, report["verdict"], stored.verdict, stored.error) == (0, "proved", "proved", "")
    (said,) = [one["message"] for one in report["findings"] if one["code"] == "unfinished"]
    assert said.endswith("after that, telling who wants to know was interrupted")
    assert Document.objects.filter(title="edited").exists() is (signal is backup_created)


def test_every_step_after_the_commit_is_taken_whatever_becomes_of_the_others(
    seeded: System, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: Any
) -> None:
    (tmp_path / "site.pem").write_text("PEM")
    settings.BACKUPS = settings.BACKUPS | {"CONFIG_ROOT": tmp_path, "CONFIG_FILES": ["site.pem"]}
    assert seeded.run("create_backup").code == 0
    Document.objects.update(title="edited")
    database = restore_service.databases.of("default").__class__

    def fail(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(restore_service, "settle", fail)
        patch.setattr(database, "after_commit", fail)
        patch.setattr(restore_service, "restore_config", fail)
        restored = seeded.run("restore_backup", "latest", "--config-to", str(tmp_path / "etc"))

    assert (restored.code, restored.out.count("warning unfinished")) == (0, 3)
    assert f"writing configuration files to {tmp_path / 'etc'} failed: [Errno 28] No space left" in restored.out
    assert not Document.objects.filter(title="edited").exists()
    report = RestoreReport.objects.filter(operation="restore").get()
    assert (report.verdict, report.findings.filter(code="unfinished").count()) == ("proved", 3)


def test_a_row_that_names_a_file_elsewhere_stops_a_backup_and_not_a_reinit(seeded: System) -> None:
    DocumentVersion.objects.filter(pk=DocumentVersion.objects.first().pk).update(file="../x.txt")  # type: ignore[union-attr]
    refused = seeded.run("create_backup", "--allow-missing-files")
    assert refused.code == 1
    assert "leads out of storage" in refused.err
    assert seeded.run("reinit_system", "--no-input", "--no-safety-backup").code == 0


@pytest.mark.parametrize("command", ["create_backup", "reinit_system", "restore_backup"])
def test_a_row_that_names_a_file_with_a_nul_is_named(seeded: System, command: str) -> None:
    if seeded.engine == "postgresql":
        return  # which takes no NUL
    DocumentVersion.objects.filter(pk=DocumentVersion.objects.first().pk).update(file="a\0b.pdf")  # type: ignore[union-attr]
    arguments = {"create_backup": ["--allow-missing-files"], "restore_backup": ["latest", "--no-input"]}
    with nothing_changes(seeded):
        refused = seeded.run(command, *arguments.get(command, ["--no-input"]))
    assert refused.code == 1
    assert r"a row names the file 'a\x00b.pdf'" in refused.err
    assert "hint: correct the row" in refused.err
    assert seeded.run("reinit_system", "--no-input", "--no-safety-backup").code == 0


def test_the_rows_of_excluded_models_are_told_where_they_stand_in_the_way(seeded: System) -> None:
    with override_settings(BACKUPS={"EXCLUDE": ["documents.DocumentReference"], "STORAGE": "backups"}):
        with nothing_changes(seeded):
            refused = seeded.run("reinit_system", "--no-input", "--no-safety-backup")
        assert refused.code == 1
        assert "packages leave out" in refused.err


def test_partial_packages_of_the_dead_are_removed(seeded: System) -> None:
    (seeded.packages / ".partial-dead.zip").write_bytes(b"half")
    assert seeded.run("create_backup").code == 0
    assert not list(seeded.packages.glob(".partial-*"))


def test_pipes_among_the_packages_are_passed_over(shell: dict[str, str]) -> None:
    packages, name = Path(shell["BACKUPS_ROOT"]), "backup-20200101T000000.000000Z-00000000.zip"
    for pipe in (".partial-x", name):
        os.mkfifo(packages / pipe)
    assert run(shell, "create_backup", capture_output=True).returncode == 0
    for reference in (name, str(packages / name)):
        refused = run(shell, "inspect_backup", reference, capture_output=True)
        assert (refused.returncode, "there is no package" in refused.stderr) == (2, True)
    assert name not in run(shell, "list_backups", capture_output=True).stdout


def test_mariadb_keeps_writers_out(new_system: Callable[..., System]) -> None:
    with new_system("mariadb").active() as system:
        system.run("seed_demo")
        database = restore_service.databases.of("default")
        with database.exclusive(["auth_group", "documents_document"]):
            other = connections["default"].copy()
            try:
                with other.cursor() as cursor:
                    cursor.execute("SET innodb_lock_wait_timeout = 1")
                    for sql in (
                        "INSERT INTO auth_group (name) VALUES ('late')",
                        "UPDATE documents_document SET title = 'late'",
                        "DELETE FROM documents_document",
                    ):
                        with pytest.raises(Exception, match="Lock wait timeout"):
                            cursor.execute(sql)
            finally:
                other.close()
