"""Writing a package again with records that its writer would never have written, under hashes that fit."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from backups.package.manifest import FileRecord, Manifest, ModelEntry
from backups.package.reader import PackageReader
from backups.package.writer import PackageWriter, hash_stream

Line = Callable[[str, bytes], list[bytes]]
"""From label and line to the lines that take its place."""
Entry = Callable[[ModelEntry], ModelEntry]

VALUES: list[Any] = [
    None, True, 0, -1, 2**63, 2**70, 1.5, "", "x" * 5000, "\x00", "\ud800", "'; DROP TABLE core_user; --", "{{ 7*7 }}",
    [], ["alice"], ["nobody"], [None], [["deep"]], {}, {"a": 1}, "2026-13-45", "99999-01-01T00:00:00", "not-a-number",
]  # fmt: skip


def rewrite(source: Path, target: Path, line: Line, entry: Entry = lambda one: one) -> Path:
    """Write ``source`` again with other lines and entries; rows and hashes are counted anew."""
    with PackageReader(source) as reader, target.open("w+b") as file:
        writer, models = PackageWriter(file), []
        for one in reader.manifest.models:
            with writer.model(one.label) as model:
                for original in reader.lines(one.label):
                    for changed in line(one.label, original):
                        model.write(changed + b"\n", 1)
            models.append(entry(replace(one, rows=model.rows, chunks=tuple(model.chunks))))
        index = writer.write_file_index(_files(reader, writer))
        names = ("created", "kind", "versions", "engine", "migrations", "excluded", "unknown_tables")
        parts = {name: getattr(reader.manifest, name) for name in names}
        files = replace(reader.manifest.files, index=index)
        writer.finish(Manifest.build(**parts, models=tuple(models), files=files, config=()))
    return target


def _files(reader: PackageReader, writer: PackageWriter) -> Iterator[FileRecord]:
    for record in reader.files():
        content = b"".join(reader.iter_file(str(record.sha256)))
        size, crc32, sha256 = hash_stream([content])
        writer.add_file(sha256, size, crc32, [content])
        yield record


def random_lines(seed: int, most: float = 0.1) -> Line:
    """Return a change of some lines: another value somewhere, a part lost or added, a line lost, doubled or strange.

    ``most`` is the share of the lines that are changed at most: a few get further than many.
    """
    chance = random.Random(seed)
    at = chance.random() * most

    def line(label: str, original: bytes) -> list[bytes]:
        if chance.random() > at:
            return [original]
        record = json.loads(original)
        kind = chance.randrange(9)
        if kind < 4:
            part = chance.choice([record["fields"], record.setdefault("refs", {}), record.setdefault("keys", {})])
            names = list(part) or list(record["fields"]) or ["pk"]
            part[chance.choice(names)] = chance.choice(VALUES)
        elif kind == 4:
            record[chance.choice(["model", "pk", "fields", "refs", "keys", "key", "json_null"])] = chance.choice(VALUES)
        elif kind == 5:
            record["fields"].pop(chance.choice(list(record["fields"]) or ["none"]), None)
        elif kind == 6:
            record[chance.choice(["surprise", "__class__"])] = chance.choice(VALUES)
        elif kind == 7:
            return chance.choice([[], [original, original]])
        else:
            return [chance.choice([b"", b"null", b"[]", b"{", b"\xff\xfe", b'{"model":"' + b"x" * 50])]
        return [json.dumps(record, separators=(",", ":")).encode("utf-8", "surrogatepass")]

    return line
