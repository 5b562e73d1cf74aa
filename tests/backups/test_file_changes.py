"""Files change with the rows that name them, or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backups import files
from backups.models import RestoreReport
from documents.models import Document, DocumentVersion
from tests import oracle
from tests.backups.conftest import nothing_changes
from tests.systems import System


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
