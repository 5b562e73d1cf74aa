"""Files that are not packages and hold what one would: fixtures of ``dumpdata``, and older migration packages.

What a file is, its content says and never its name. A migration package is a tar archive of

    database/database_backup.json   a fixture
    storage/<name>                  stored files
    configuration/<path>            configuration files
    metadata.json                   about the archive
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from backups.errors import PackageDamaged
from backups.package.container import LOCAL_BEGINNING, is_allowed
from backups.package.fixtures import FixtureObject, detect_format, read_objects

FIXTURE, MIGRATION_PACKAGE = "fixture", "migration package"
DATABASE_MEMBER = "database/database_backup.json"
METADATA_MEMBER = "metadata.json"
MAX_METADATA_BYTES = 16 * 1024 * 1024
MAX_TAR_HEADER_BYTES = 1024 * 1024
MAX_CONFIG_BYTES = 64 * 1024 * 1024
"""A configuration file is held in memory."""

MAX_UNFOLDING = 250
"""How many times its size a compressed file may become, beyond ``FREE_BYTES``: fixtures become some thirty times."""
FREE_BYTES = 64 * 1024 * 1024
MAX_MODELS = 10_000
"""Names of models in one file; each is remembered."""

_EXTENSIONS = {
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.GNUTYPE_SPARSE),
}
_BEGINNING = 4096
READ_BYTES = 64 * 1024
_ZIP_NAME = 30
"""Where the first member's name stands in a ZIP archive."""
_ARMOUR = b"-----BEGIN AGE ENCRYPTED FILE-----"
_HINT = "a package is what create_backup writes, a fixture what dumpdata writes"
_UNREADABLE = (EOFError, OSError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile)


@dataclass(frozen=True, kw_only=True)
class ForeignFile:
    """A foreign file as its first bytes tell. ``format`` is that of a fixture, and ``tar`` of a migration package."""

    path: Path
    kind: str
    format: str
    compression: str

    def __str__(self) -> str:
        return f"{self.kind} ({self.format}, {self.compression or 'not compressed'})"


@dataclass(frozen=True, slots=True)
class ForeignMember:
    """A member of a migration package: ``kind`` is storage, configuration, metadata or unknown.

    ``stream`` is to be read before the next item.
    """

    kind: str
    name: str
    size: int
    mode: int
    stream: IO[bytes]

    def read(self, limit: int) -> bytes:
        data = self.stream.read(limit + 1)
        if len(data) > limit:
            raise PackageDamaged(f"{self.kind}/{self.name} is larger than {limit} bytes")
        return data


def recognise(path: Path) -> ForeignFile | None:
    """Look into a file and tell what it is; None for a package.

    Raises ``PackageDamaged`` for what is neither, and for what cannot be decompressed.
    """
    with path.open("rb") as file:
        beginning = file.read(_BEGINNING)
    if beginning.startswith(_ARMOUR):
        raise PackageDamaged(f"{path.name} is an armoured age file", hint="take the armour off, or decrypt it: age -d")
    compression = _compression(beginning)
    if compression == "zip" and _begins_as_package(beginning):
        return None
    foreign = ForeignFile(path=path, kind=FIXTURE, format="", compression=compression)
    with _open(foreign) as stream:
        beginning = stream.read(_BEGINNING)
    if beginning[257:262] == b"ustar":
        return ForeignFile(path=path, kind=MIGRATION_PACKAGE, format="tar", compression=compression)
    form = detect_format(beginning)
    if form is None:
        raise PackageDamaged(f"{path.name} is not a package or fixture", hint=_HINT)
    return ForeignFile(path=path, kind=FIXTURE, format=form, compression=compression)


def contents(foreign: ForeignFile, decoder: json.JSONDecoder) -> Iterator[FixtureObject | ForeignMember]:
    """Read everything in a foreign file once, from its beginning to its end."""
    models: set[str] = set()
    with _open(foreign) as stream:
        fixture = foreign.kind == FIXTURE
        for item in read_objects(stream, foreign.format, decoder) if fixture else _members(foreign, stream, decoder):
            if isinstance(item, FixtureObject):
                models.add(item.model)
                if len(models) > MAX_MODELS:
                    raise PackageDamaged(f"{item.place}: the file names more than {MAX_MODELS} models")
            yield item


def _members(
    foreign: ForeignFile, stream: BinaryIO, decoder: json.JSONDecoder
) -> Iterator[FixtureObject | ForeignMember]:
    has_fixture = False
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Entry) as archive:
        while (entry := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # which it would remember, all of them
            if entry.isdir():
                continue
            if not entry.isreg() or entry.issparse():
                raise PackageDamaged(f"{entry.name!r} is neither a file nor a directory")
            kind, name = _place(entry.name)
            content = io.BufferedReader(_Forward(cast("IO[bytes]", archive.extractfile(entry)), entry.name))
            if kind != "database":
                yield ForeignMember(kind, name, entry.size, entry.mode & 0o777, cast("IO[bytes]", content))
            elif has_fixture:
                raise PackageDamaged(f"{DATABASE_MEMBER} is there twice")
            else:
                has_fixture = True
                yield from _fixture_member(content, decoder)
    while stream.read(_BEGINNING):
        pass  # a compressed file's checksum is at its end
    if not has_fixture:
        raise PackageDamaged(
            f"{foreign.path.name} is not a package or fixture: it is an archive without {DATABASE_MEMBER}", hint=_HINT
        )


class _Entry(tarfile.TarInfo):
    """A header of a tar archive that neither goes backwards nor has a name without end."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        # What is no member with content of its own says more of the next one, and is read whole.
        is_long = self.type not in tarfile.SUPPORTED_TYPES or self.type in _EXTENSIONS
        if self.size < 0 or (is_long and self.size > MAX_TAR_HEADER_BYTES):
            raise PackageDamaged(f"the archive has a header of {self.size} bytes")
        entry: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        if entry.size < 0:  # by an extended header
            raise PackageDamaged(f"{entry.name!r} has {entry.size} bytes")
        return entry


class _Forward(io.RawIOBase):
    """A member of a tar archive that is read as a stream, which cannot even be asked whether it can go back."""

    def __init__(self, content: IO[bytes], name: str) -> None:
        super().__init__()
        self._content = content
        self._name = name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._content.read(len(buffer))
        except _UNREADABLE as error:
            raise PackageDamaged(f"{self._name!r} cannot be read: {error}") from error
        buffer[: len(data)] = data
        return len(data)


def _fixture_member(content: io.BufferedReader[_Forward], decoder: json.JSONDecoder) -> Iterator[FixtureObject]:
    form = detect_format(content.peek(_BEGINNING))
    if form is None:
        raise PackageDamaged(f"{DATABASE_MEMBER} is not a fixture", hint=_HINT)
    try:
        yield from read_objects(cast("BinaryIO", content), form, decoder)
    except PackageDamaged as error:
        raise PackageDamaged(f"{DATABASE_MEMBER}: {error}", hint=error.hint) from error


def _place(path: str) -> tuple[str, str]:
    """Tell what a member is; the archive's content may lie in one directory of any name."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or path.startswith("/") or "\\" in path or "\0" in path:
        raise PackageDamaged(f"the archive has a member that leads out of it: {path!r}")
    for start in (0, 1):
        head, rest = parts[start : start + 1], "/".join(parts[start + 1 :])
        if "/".join(parts[start:]) == DATABASE_MEMBER:
            return "database", rest
        if head == [METADATA_MEMBER] and not rest:
            return "metadata", METADATA_MEMBER
        if head in (["storage"], ["configuration"]) and rest:
            return head[0], rest
    return "unknown", "/".join(parts)


def _compression(beginning: bytes) -> str:
    for signature, name in _SIGNATURES.items():
        if beginning.startswith(signature):
            return name
    return ""


_SIGNATURES = {
    b"\x1f\x8b": "gz",
    b"BZh": "bz2",
    b"\xfd7zXZ\0": "xz",
    b"]\0\0": "lzma",
    b"PK\3\4": "zip",
}


def _begins_as_package(beginning: bytes) -> bool:
    if beginning.startswith(LOCAL_BEGINNING):
        return True  # no other program has such headers; what is wrong with the name, the reader says
    length = int.from_bytes(beginning[26:28], "little")
    return is_allowed(beginning[_ZIP_NAME : _ZIP_NAME + length].decode("utf-8", "replace"))


@contextmanager
def _open(foreign: ForeignFile) -> Iterator[BinaryIO]:
    """Open a foreign file's decompressed content. Turns whatever a decompressor finds wrong into ``PackageDamaged``."""
    path = foreign.path
    try:
        if foreign.compression == "zip":
            with ExitStack() as stack:
                try:
                    archive = stack.enter_context(zipfile.ZipFile(path))
                    content = stack.enter_context(archive.open(_only_member(archive)))
                except (ValueError, OverflowError) as error:  # names that are no text, places that no file has
                    raise PackageDamaged(f"{path.name} cannot be read: {error}") from error
                yield _bounded(content, path)
        else:
            with _OPENERS[foreign.compression](path) as stream:
                yield _bounded(stream, path) if foreign.compression else stream
    except (*_UNREADABLE, NotImplementedError, RuntimeError) as error:  # the last two are zipfile's, for encryption
        raise PackageDamaged(f"{path.name} cannot be read: {str(error) or type(error).__name__}") from error


class _Bounded(io.RawIOBase):
    """A decompressed content that stops where no content of that compressed size would go."""

    def __init__(self, stream: Any, path: Path) -> None:
        super().__init__()
        self._stream = stream
        self._path = path
        self._left = max(FREE_BYTES, MAX_UNFOLDING * path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise PackageDamaged(
                f"{self._path.name} unfolds to more than {MAX_UNFOLDING} times its size",
                hint="if you know what it is, decompress it yourself",
            )
        buffer[: len(data)] = data
        return len(data)


def _bounded(stream: Any, path: Path) -> BinaryIO:
    return cast("BinaryIO", io.BufferedReader(_Bounded(stream, path), READ_BYTES))


def _plain(path: Path) -> BinaryIO:
    return io.BufferedReader(io.FileIO(path))


_OPENERS: dict[str, Callable[[Path], Any]] = {
    "": _plain,
    "gz": gzip.GzipFile,
    "bz2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
    "lzma": lzma.LZMAFile,
}


def _only_member(archive: zipfile.ZipFile) -> str:
    names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
    if len(names) != 1:
        raise PackageDamaged(
            f"not a package or fixture: an archive of {len(names)} files, where a fixture's has one", hint=_HINT
        )
    return names[0]
