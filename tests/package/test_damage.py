"""No damage goes unnoticed, and no hostile package gets further than a clear refusal."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from backups.errors import PackageDamaged, PackageUnsupported
from backups.package.container import ContainerWriter, is_allowed
from backups.package.manifest import Chunk, Format
from backups.package.reader import PackageReader
from backups.reporting import NoProgress
from tests.package.conftest import check, write


def refused(path: Path) -> bool:
    try:
        check(path)
    except PackageDamaged:
        return True
    return False


def rewritten(package: Path, change: Callable[[dict[str, bytes]], list[tuple[str, bytes]]]) -> Path:
    """Write a package's members again with Python's own zipfile, after a change."""
    with zipfile.ZipFile(package) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
        comment = archive.comment
    target = package.with_name("rewritten.zip")
    with zipfile.ZipFile(target, "w") as archive:
        archive.comment = comment
        for name, data in change(members):
            archive.writestr(zipfile.ZipInfo(name), data)
    return target


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "change",
    [
        lambda members: list(members.items()),  # only the form is another
        lambda members: list(members.items())[1:],
        lambda members: [*members.items(), next(iter(members.items()))],
        lambda members: [*members.items(), ("../../etc/passwd", b"x")],
        lambda members: [*members.items(), ("/etc/passwd", b"x")],
        lambda members: [(name.replace("00000", "00009"), data) for name, data in members.items()],
        lambda members: list(reversed(members.items())),
    ],
)
def test_members_dropped_doubled_added_renamed_or_swapped_are_noticed(
    package: Path, change: Callable[[dict[str, bytes]], list[tuple[str, bytes]]]
) -> None:
    assert refused(rewritten(package, change))


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/passwd",
        "config/../x",
        "config//x",
        "config/./x",
        "config/a/../../x",
        "config/C:/x",
        "config/a\\b",
        "config/a\nb",
        "config/" + "x" * 1100,
        "data/App.Thing/00000.jsonl.zst",
        "data/app.thing/0.jsonl.zst",
        "data/app.thing/00000.jsonl",
        "files/ABC",
        "manifest.json/x",
        "",
    ],
)
def test_names_that_lead_elsewhere_are_not_allowed(name: str) -> None:
    assert not is_allowed(name)


def test_a_newer_format_is_refused_by_version(tmp_path: Path) -> None:
    path = tmp_path / "newer.zip"
    write(path, format=Format(version=2))
    with pytest.raises(PackageUnsupported, match="version 2"):
        check(path)


def inflated(chunk: Chunk) -> Chunk:
    return replace(chunk, bytes=chunk.bytes - 1)


def giant(chunk: Chunk) -> Chunk:
    return replace(chunk, bytes=10**15)


@pytest.mark.parametrize("lie", [inflated, giant])
def test_a_chunk_that_lies_about_its_size_is_not_inflated(tmp_path: Path, lie: Callable[[Chunk], Chunk]) -> None:
    path = tmp_path / "lying.zip"
    model = write(path).models[0]
    write(path, models=(replace(model, chunks=(lie(model.chunks[0]), *model.chunks[1:])),))
    with pytest.raises(PackageDamaged, match=r"data/app\.thing/00000"):
        check(path)


@pytest.fixture
def twice_damaged(package: Path) -> tuple[Path, list[str]]:
    """Change a byte in the middle of two chunks, and name them."""
    with PackageReader(package) as reader:
        chunks = reader.manifest.models[0].chunks
        middles = [reader._container.members[chunk.member].start + chunk.size // 2 for chunk in chunks]
    content = bytearray(package.read_bytes())
    for number in (1, 2):
        content[middles[number]] ^= 1
    package.write_bytes(content)
    return package, [chunk.member for chunk in chunks[1:3]]


def test_every_damaged_chunk_is_named_in_order(twice_damaged: tuple[Path, list[str]]) -> None:
    path, members = twice_damaged
    with PackageReader(path) as reader:
        found = [(member, str(problem).split()[0]) for member, problem in reader.problems(NoProgress())]
    assert found == [(member, member) for member in members]


def test_progress_adds_up_where_several_files_have_one_content(package: Path) -> None:
    progress = Mock()
    with PackageReader(package) as reader:
        reader.check(progress)
    assert sum(call.args[0] for call in progress.advance.call_args_list) == progress.start.call_args.args[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "0" * 32},
        {"kind": "other"},
        {"models": ()},
        {"config": ()},
    ],
)
def test_a_manifest_that_contradicts_itself_or_the_members_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "odd.zip"
    write(path, **changes)
    assert refused(path)


def test_rows_that_do_not_add_up_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd.zip"
    write(path, rows=21)
    assert refused(path)


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b"[" * 100_000,
        b'{"format": {"name": "edms-package", "version": "1"}}',
        b'{"format": {"name": "edms-package", "version": 1}, "id": 1}',
    ],
)
def test_a_manifest_that_is_no_manifest_is_refused(tmp_path: Path, manifest: bytes) -> None:
    path = tmp_path / "odd.zip"
    with path.open("wb") as file:
        ContainerWriter(file).finish(manifest)
    assert refused(path)


@pytest.mark.parametrize("content", [b"", b"x", b"PK\3\4" + b"\0" * 500, b'[{"model": "a.b"}]', b"\0" * 5000])
def test_what_is_no_package_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.zip"
    path.write_bytes(content)
    assert refused(path)
