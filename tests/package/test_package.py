"""What was written is read back, by us and by any ZIP tool, and the same input gives the same bytes."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backups.errors import BackupError
from backups.package.reader import PackageReader
from backups.package.writer import PackageWriter, hash_stream
from tests.package.conftest import CONTENT, LINES, check, write


def test_what_was_written_is_read_back(package: Path) -> None:
    with PackageReader(package) as reader:
        assert list(reader.lines("app.thing")) == LINES
        assert [record.name for record in reader.files()] == ["a.txt", "b.txt", "lost.txt"]
        (sha256,) = {record.sha256 for record in reader.files()} - {None}
        assert b"".join(reader.iter_file(str(sha256))) == CONTENT
        (entry,) = reader.manifest.config
        assert reader.read_config(entry) == b"KEY=value\n"
    check(package)


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_any_zip_tool_opens_a_package(package: Path) -> None:
    with zipfile.ZipFile(package) as archive:
        assert archive.testzip() is None
        manifest = json.loads(archive.read("manifest.json"))
    assert manifest["format"] == {"name": "edms-package", "version": 1}


def test_one_content_is_stored_once_however_many_rows_name_it(package: Path) -> None:
    with zipfile.ZipFile(package) as archive:
        assert len([name for name in archive.namelist() if name.startswith("files/")]) == 1


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    size, crc32, sha256 = hash_stream([CONTENT])
    with (tmp_path / "x").open("wb") as file, pytest.raises(BackupError, match="changed while it was read"):
        PackageWriter(file).add_file(sha256, size, crc32, [CONTENT + b"more"])


@given(st.lists(st.binary(min_size=20, max_size=300).map(lambda data: data.replace(b"\n", b"_")), max_size=50))
@settings(max_examples=50, deadline=None)
def test_lines_of_any_bytes_come_back(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("any") / "package.zip"
    write(path, lines=lines)
    with PackageReader(path) as reader:
        reader.check(_Silent())
        assert list(reader.lines("app.thing")) == lines


class _Silent:
    def start(self, phase: str, total: int | None = None, unit: str = "rows") -> None: ...

    def advance(self, amount: int) -> None: ...

    def finish(self) -> None: ...
