"""Writing a package: chunks of lines, stored files, configuration, and the manifest at the end."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from typing import BinaryIO

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from backups.package.container import COPY_BYTES, FILE_INDEX, ContainerWriter
from backups.package.manifest import Chunk, ConfigEntry, FileRecord, Manifest, chunk_name
from backups.package.signature import sign

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CHUNK_BYTES = 4 * 1024 * 1024
"""Uncompressed lines in a chunk: enough for zstd to find what repeats, little enough to hold some in memory."""
LOOK_AHEAD = 2
"""Chunks that wait for the compressing thread, which runs beside the encoder because zstd releases the lock."""


class PackageWriter:
    """Writes one package into a file opened for binary writing. The same input gives the same bytes."""

    def __init__(self, file: BinaryIO, *, level: int = 3, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._file = file
        self._container = ContainerWriter(file)
        self._level = level
        self._chunk_bytes = chunk_bytes

    @contextmanager
    def model(self, label: str) -> Iterator[ModelWriter]:
        """Write the records of one model. After the block, its ``chunks`` and ``rows`` are complete."""
        with ThreadPoolExecutor(max_workers=1) as compressor:
            writer = ModelWriter(self._container, compressor, label, self._level, self._chunk_bytes)
            yield writer
            writer.finish()

    def add_file(self, sha256: str, size: int, crc32: int, chunks: Iterable[bytes]) -> None:
        """Write a stored file's content, unless the package has it. Raises ``ContentChanged`` if it has changed."""
        name = f"files/{sha256}"
        if name not in self._container:
            self._container.add(name, size, crc32, chunks)

    def write_file_index(self, records: Iterable[FileRecord]) -> Chunk | None:
        """Write the list of stored files, in the order given; ``records`` may call ``add_file`` on its way."""
        with tempfile.TemporaryFile() as spool:
            rows = raw = 0
            with zstd.open(spool, "wb", level=self._level) as compressed:
                for record in records:
                    line = orjson.dumps(asdict(record), option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)
                    compressed.write(line)
                    rows += 1
                    raw += len(line)
            if not rows:
                return None
            size, crc32, sha256 = hash_stream(_read_again(spool))
            self._container.add(FILE_INDEX, size, crc32, _read_again(spool))
        return Chunk(member=FILE_INDEX, rows=rows, size=size, bytes=raw, sha256=sha256)

    def add_config(self, path: str, data: bytes, mode: int) -> ConfigEntry:
        """Write a configuration file under its relative path."""
        member = f"config/{path}"
        self._container.add(member, len(data), zlib.crc32(data), [data])
        return ConfigEntry(member=member, size=len(data), sha256=hashlib.sha256(data).hexdigest(), mode=mode)

    def finish(self, manifest: Manifest, key: Ed25519PrivateKey | None = None) -> None:
        """Write the manifest, signed where there is a key, and the end; have the system put everything on disk."""
        data = manifest.to_json()
        self._container.finish(data, sign(data, key).to_bytes() if key else b"")
        self._file.flush()
        os.fsync(self._file.fileno())


class ModelWriter:
    """Cuts lines into chunks, has them compressed in another thread, and writes them in order."""

    def __init__(
        self, container: ContainerWriter, compressor: ThreadPoolExecutor, label: str, level: int, chunk_bytes: int
    ) -> None:
        self.label = label
        self.rows = 0
        self.chunks: list[Chunk] = []
        self._container = container
        self._compressor = compressor
        self._level = level
        self._chunk_bytes = chunk_bytes
        self._blocks: list[bytes] = []
        self._size = self._rows = 0
        self._waiting: deque[tuple[int, int, Future[bytes]]] = deque()

    def write(self, block: bytes, rows: int) -> None:
        """Add so many records: whole lines, each with its line feed. Where chunks end is not where blocks do."""
        while self._size + len(block) >= self._chunk_bytes:
            end = block.index(b"\n", self._chunk_bytes - self._size - 1) + 1
            first = block[:end].count(b"\n")
            self._add(block[:end], first)
            self._cut()
            block, rows = block[end:], rows - first
        self._add(block, rows)

    def finish(self) -> None:
        """Write what is left."""
        self._cut()
        while self._waiting:
            self._store()

    def _add(self, block: bytes, rows: int) -> None:
        self._blocks.append(block)
        self._size += len(block)
        self._rows += rows

    def _cut(self) -> None:
        if not self._size:
            return
        data = b"".join(self._blocks)
        self._waiting.append((self._rows, len(data), self._compressor.submit(zstd.compress, data, self._level)))
        self.rows += self._rows
        self._blocks, self._size, self._rows = [], 0, 0
        if len(self._waiting) > LOOK_AHEAD:
            self._store()

    def _store(self) -> None:
        rows, raw, compressed = self._waiting.popleft()
        data = compressed.result()
        name = chunk_name(self.label, len(self.chunks))
        self._container.add(name, len(data), zlib.crc32(data), [data])
        sha256 = hashlib.sha256(data).hexdigest()
        self.chunks.append(Chunk(member=name, rows=rows, size=len(data), bytes=raw, sha256=sha256))


def hash_stream(chunks: Iterable[bytes]) -> tuple[int, int, str]:
    """Return size in bytes, CRC-32 and hexadecimal SHA-256 of a content read in pieces."""
    size = crc32 = 0
    sha256 = hashlib.sha256()
    for chunk in chunks:
        size += len(chunk)
        crc32 = zlib.crc32(chunk, crc32)
        sha256.update(chunk)
    return size, crc32, sha256.hexdigest()


def _read_again(file: BinaryIO) -> Iterator[bytes]:
    file.seek(0)
    while chunk := file.read(COPY_BYTES):
        yield chunk
