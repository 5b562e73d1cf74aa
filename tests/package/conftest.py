from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from backups.package.manifest import (
    ColumnEntry,
    FileRecord,
    FilesEntry,
    IdentityEntry,
    Manifest,
    ModelEntry,
)
from backups.package.reader import PackageReader
from backups.package.writer import PackageWriter, hash_stream
from backups.reporting import NoProgress

LINES = [b'{"model":"app.thing","pk":%d,"fields":{"name":"thing %d"}}' % (number, number) for number in range(20)]
CONTENT = b"a stored file\n" * 20


def write(
    path: Path,
    *,
    lines: list[bytes] = LINES,
    rows: int | None = None,
    key: Ed25519PrivateKey | None = None,
    **changes: Any,
) -> Manifest:
    """Write a small package of every kind of member; ``changes`` go into the manifest, however wrong."""
    with path.open("wb") as file:
        writer = PackageWriter(file, chunk_bytes=400)
        with writer.model("app.thing") as model:
            for line in lines:
                model.write(line + b"\n", 1)
        size, crc32, sha256 = hash_stream([CONTENT])

        def records() -> Iterator[FileRecord]:
            writer.add_file(sha256, size, crc32, [CONTENT])
            yield FileRecord(storage="default", name="a.txt", size=size, sha256=sha256)
            writer.add_file(sha256, size, crc32, [CONTENT])
            yield FileRecord(storage="default", name="b.txt", size=size, sha256=sha256)
            yield FileRecord(storage="default", name="lost.txt", size=None, sha256=None)

        index = writer.write_file_index(records())
        config = writer.add_config("deploy/.env", b"KEY=value\n", 0o600)
        entry = ModelEntry(
            label="app.thing",
            table="app_thing",
            rows=model.rows if rows is None else rows,
            columns=(ColumnEntry(name="name", type="CharField", null=False),),
            identity=IdentityEntry(rule="natural", fields=("name",)),
            references=(),
            digest="0" * 64,
            next_key=None,
            chunks=tuple(model.chunks),
        )
        parts: dict[str, Any] = {
            "created": datetime(2026, 1, 2, 3, 4, 5, 678, UTC),
            "kind": "backup",
            "versions": {"python": "3.11"},
            "engine": {"vendor": "sqlite", "version": "3"},
            "migrations": {"app": ("0001_initial",)},
            "models": (entry,),
            "excluded": (),
            "unknown_tables": (),
            "files": FilesEntry(count=3, missing=1, unreferenced=0, bytes=2 * size, index=index),
            "config": (config,),
        }
        manifest = Manifest.build(**parts)
        changed = replace(manifest, **changes)
        if changes and "id" not in changes:
            changed = replace(changed, id=changed.derived_id())
        writer.finish(changed, key)
    return changed


def check(path: Path) -> Manifest:
    """Open a package and check every hash."""
    with PackageReader(path) as package:
        package.check(NoProgress())
        return package.manifest


@pytest.fixture
def package(tmp_path: Path) -> Path:
    path = tmp_path / "package.zip"
    write(path)
    return path
