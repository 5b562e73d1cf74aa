"""Reading a package. Nothing is believed before its hash has been checked, and nothing is read past its stated size."""

from __future__ import annotations

import hashlib
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from backups.errors import PackageDamaged
from backups.package.bounds import MAX_OBJECT_CHARACTERS, require_few_values
from backups.package.container import COPY_BYTES, FILE_INDEX, MANIFEST, SIGNATURE, ContainerReader
from backups.package.manifest import Chunk, ConfigEntry, FileRecord, Manifest, parse_file_record
from backups.package.signature import SIGNATURE_BYTES, Signature
from backups.package.survey import survey

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_MANIFEST_BYTES = 64 * 1024 * 1024
"""The manifest is the one member read whole; this is room for some hundred thousand chunks."""
MAX_CHUNK_BYTES = MAX_OBJECT_CHARACTERS
"""A chunk holds whole records, so that one very large value makes a large chunk."""


class Progress(Protocol):
    def start(self, phase: str, total: int | None = None, unit: str = "rows") -> None: ...

    def advance(self, amount: int) -> None: ...

    def finish(self) -> None: ...


class PackageReader:
    """One package, opened by path. Opening reads the manifest alone; ``check`` reads everything.

    ``signature`` is None, or fits the manifest; whether its key is to be trusted is not known here.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise PackageDamaged(f"{path.name} cannot be opened: {error.strerror or error}") from error
        try:
            self._container = ContainerReader(self._file)
            manifest = self._read_manifest()
            self.signature = self._read_signature(manifest)
            self.manifest = Manifest.from_json(manifest)
            self._require_members()
        except PackageDamaged as error:
            error.survey = survey(self._file)
            if error.survey.damaged or not hasattr(self, "_container"):
                error.args = (f"{error}\n  {error.survey}",)
            self._file.close()
            raise
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def check(self, progress: Progress) -> None:
        """Read every member and compare its hash, and count every chunk's lines. Raises ``PackageDamaged``."""
        for _, problem in self.problems(progress):
            raise problem

    def problems(self, progress: Progress) -> Iterator[tuple[str, PackageDamaged]]:
        """Do what ``check`` does, and yield each damaged member with what is wrong with it."""
        chunks = self.manifest.chunks
        sizes = [chunk.size for chunk in chunks]
        sizes += [self._container.members[f"files/{sha256}"].size for sha256 in self._stored]
        progress.start("check package", sum(sizes), "bytes")
        checks: list[tuple[str, Callable[[], None]]] = [
            *((chunk.member, partial(self._check_chunk, chunk, progress)) for chunk in chunks),
            (FILE_INDEX, self._check_stored),
            *((f"files/{sha256}", partial(self._check_file, sha256, progress)) for sha256 in sorted(self._stored)),
            *((entry.member, partial(self._check_config, entry)) for entry in self.manifest.config),
        ]
        for member, check in checks:
            try:
                check()
            except PackageDamaged as error:
                yield member, error
        progress.finish()

    def _check_chunk(self, chunk: Chunk, progress: Progress) -> None:
        for _ in self._blocks(chunk):
            pass
        progress.advance(chunk.size)

    def _check_stored(self) -> None:
        """Check that members, list and manifest agree on the stored files."""
        left, expected = self._stored, self.manifest.files
        missing, size, last = 0, 0, ("", "")
        for record in self.files():
            if last >= (record.storage, record.name):
                raise PackageDamaged(f"{FILE_INDEX} lists {record.name!r} twice, or not in its place")
            last = record.storage, record.name
            if record.sha256 is None:
                missing += record.size is None  # one of size 0 is not missing: it is not to be there
                continue
            member = self._container.members.get(f"files/{record.sha256}")
            if member is None:
                raise PackageDamaged(f"files/{record.sha256} is missing")
            if member.size != record.size:
                raise PackageDamaged(f"{member.name} has {member.size} bytes, and {FILE_INDEX} says {record.size}")
            size += member.size
            left.discard(record.sha256)
        if left:
            raise PackageDamaged(f"files/{min(left)} is not in the list of {FILE_INDEX}")
        if (missing, size) != (expected.missing, expected.bytes):
            raise PackageDamaged(f"{FILE_INDEX} does not hold the files that the manifest says")

    def _check_file(self, sha256: str, progress: Progress) -> None:
        for data in self.iter_file(sha256):
            progress.advance(len(data))

    def _check_config(self, entry: ConfigEntry) -> None:
        self.read_config(entry)

    @property
    def _stored(self) -> set[str]:
        return {name.removeprefix("files/") for name in self._container.members if name.startswith("files/")}

    def lines(self, label: str) -> Iterator[bytes]:
        """Read the records of a model, one line each, without the line feed."""
        for block in self.blocks(label):
            yield from _lines(block)

    def blocks(self, label: str) -> Iterator[bytes]:
        """Read the records of a model, many lines at a time, each with its line feed."""
        for model in self.manifest.models:
            if model.label == label:
                for chunk in model.chunks:
                    yield from self._blocks(chunk)

    def files(self) -> Iterator[FileRecord]:
        """Read the list of stored files."""
        if self.manifest.files.index is not None:
            for block in self._blocks(self.manifest.files.index):
                yield from map(parse_file_record, _lines(block))

    def iter_file(self, sha256: str) -> Iterator[bytes]:
        """Read a stored file in pieces. Raises ``PackageDamaged`` at the end if they were not what was written."""
        name = f"files/{sha256}"
        if name not in self._container.members:
            raise PackageDamaged(f"{name} is not in the package")
        yield from self._verified(name, sha256)

    def read_config(self, entry: ConfigEntry) -> bytes:
        """Read a configuration file."""
        return b"".join(self._verified(entry.member, entry.sha256))

    def _verified(self, name: str, sha256: str) -> Iterator[bytes]:
        found = hashlib.sha256()
        for data in self._container.chunks(name):
            found.update(data)
            yield data
        if found.hexdigest() != sha256:
            raise PackageDamaged(f"{name} is not what was written: its hash differs")

    def _blocks(self, chunk: Chunk) -> Iterator[bytes]:
        """Read whole lines of a chunk, as they unfold: no more than a piece or one line is in memory."""
        if max(chunk.bytes, chunk.size) > MAX_CHUNK_BYTES:
            raise PackageDamaged(f"{chunk.member} claims to hold {max(chunk.bytes, chunk.size)} bytes")
        stored = b"".join(self._verified(chunk.member, chunk.sha256))
        decompressor = zstd.ZstdDecompressor()
        rows, left = chunk.rows, chunk.bytes
        pieces: list[bytes] = []
        while not decompressor.eof:
            try:
                # One byte more than stated is enough to know that a chunk inflates past it.
                data = decompressor.decompress(stored, max_length=min(COPY_BYTES, left + 1))
            except zstd.ZstdError as error:
                raise PackageDamaged(f"{chunk.member} cannot be decompressed: {error}") from error
            end = data.rfind(b"\n") + 1
            # A third of the time that count() takes, which looks at each byte by itself.
            stored, left, rows = b"", left - len(data), rows - len(data) + len(data.replace(b"\n", b""))
            if left < 0 or rows < 0 or (not data and decompressor.needs_input):
                break
            if end:
                block = b"".join([*pieces, data[:end]])
                require_few_values(block[: block.index(b"\n")], f"a record of {chunk.member}")
                yield block
                pieces = []
            pieces.append(data[end:])
        if left or rows or any(pieces) or not decompressor.eof or decompressor.unused_data or not chunk.bytes:
            raise PackageDamaged(f"{chunk.member} does not hold the lines that the manifest says")

    def _read_manifest(self) -> bytes:
        if self._container.members[MANIFEST].size > MAX_MANIFEST_BYTES:
            raise PackageDamaged(f"{MANIFEST} is too large")
        return b"".join(self._verified(MANIFEST, self._container.manifest_sha256))

    def _read_signature(self, manifest: bytes) -> Signature | None:
        member = self._container.members.get(SIGNATURE)
        if member is None:
            return None
        if member.size != SIGNATURE_BYTES:
            raise PackageDamaged(f"{SIGNATURE} is not a signature")
        data = b"".join(self._container.chunks(SIGNATURE))
        if zlib.crc32(data) != member.crc32:
            raise PackageDamaged(f"{SIGNATURE} is not what was written: its checksum differs")
        signature = Signature.from_bytes(data)
        signature.require_valid(manifest)
        return signature

    def _require_members(self) -> None:
        """Check that container and manifest name the same members with the same sizes."""
        described: list[Chunk | ConfigEntry] = [*self.manifest.chunks, *self.manifest.config]
        sizes = {entry.member: entry.size for entry in described}
        for name, member in self._container.members.items():
            if name in (MANIFEST, SIGNATURE) or name.startswith("files/"):
                continue  # a stored file is named by its hash; check() compares them with their list
            if sizes.pop(name, None) != member.size:
                raise PackageDamaged(f"{name} is not the member that the manifest describes")
        if sizes:
            raise PackageDamaged(f"{min(sizes)} is missing")


def _lines(block: bytes) -> list[bytes]:
    return block[:-1].split(b"\n")
