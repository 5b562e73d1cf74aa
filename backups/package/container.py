"""The file that holds a package's members: a ZIP archive that can be written in exactly one way.

Members are stored, not compressed, back to back, with fixed time, attributes and flags, so that every byte of a
package follows from its members. The reader writes each header again and refuses one that is not the same. Layout
after PKWARE's APPNOTE 6.3.10; every entry has a ZIP64 field and every archive ZIP64 end records, so that there is one
form for all sizes.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from backups.errors import BackupError, PackageDamaged

MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
FILE_INDEX = "files.jsonl.zst"
COPY_BYTES = 128 * 1024
"""With pieces of 1 MiB, the check of a package takes half as long again."""
MAX_NAME_BYTES = 1024
"""Longer than any path that a configuration file is kept under."""
MAX_PART_BYTES = 255
"""What file systems take between two slashes."""

_VERSION = 45  # what ZIP64 needs
_UTF8 = 0x800
_DATE = 0x21  # 1980-01-01, the first that ZIP knows
_UNIX = 3 << 8 | _VERSION
_ATTRIBUTES = 0o100600 << 16  # a regular file, private to its owner
_FILLED = 0xFFFFFFFF  # says: look into the ZIP64 field

_LOCAL = struct.Struct("<4s5H3L2H")
_LOCAL_EXTRA = struct.Struct("<2H2Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_CENTRAL_EXTRA = struct.Struct("<2H3Q")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_END = struct.Struct("<4s4H2LH")
_COMMENT_PREFIX = b"sha256:"
_COMMENT_BYTES = len(_COMMENT_PREFIX) + 64
MAX_HEADER_BYTES = _CENTRAL.size + MAX_NAME_BYTES + _CENTRAL_EXTRA.size
LOCAL_BEGINNING = _LOCAL.pack(b"PK\3\4", _VERSION, _UTF8, 0, 0, _DATE, *[0] * 5)[:14]
CENTRAL_BEGINNING = _CENTRAL.pack(b"PK\1\2", _UNIX, _VERSION, _UTF8, 0, 0, _DATE, *[0] * 10)[:16]
END_BEGINNING = b"PK\6\6"
_TAIL_BYTES = _END64.size + _LOCATOR64.size + _END.size + _COMMENT_BYTES

MAX_DIRECTORY_BYTES = 512 * 1024 * 1024
"""Some three million members: the directory is read as a stream, but each member's place is remembered."""

_NAME = re.compile(
    r"manifest\.json|manifest\.sig|files\.jsonl\.zst"
    r"|data/[a-z0-9_]+\.[a-z0-9_]+/\d{5,8}\.jsonl\.zst"
    r"|files/[0-9a-f]{64}"
    r"|config(?:/(?!\.{1,2}(?:/|$))[^/\\:\x00-\x1f\x7f]+)+"
)
# Windows opens a device for these, whatever their directory and ending.
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])\s*(?:\..*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Member:
    """One entry: where its header begins, how long its content is, and the CRC-32 that ZIP keeps of it."""

    name: str
    offset: int
    size: int
    crc32: int

    @property
    def start(self) -> int:
        return self.offset + _LOCAL.size + len(self.name.encode()) + _LOCAL_EXTRA.size

    @property
    def end(self) -> int:
        return self.start + self.size


class ContentChanged(BackupError):
    """Content that is not what it was when its size and CRC were taken."""


def is_allowed(name: str) -> bool:
    """Return whether a member may have this name; none leads out of the directory it is unpacked in."""
    if _NAME.fullmatch(name) is None or len(name.encode()) > MAX_NAME_BYTES:
        return False
    parts = name.split("/") if name.startswith("config/") else ()
    return not any(len(part.encode()) > MAX_PART_BYTES or _DEVICE.fullmatch(part) for part in parts)


class ContainerWriter:
    """Writes members one after the other into a file opened for binary writing, from its current end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._members: dict[str, Member] = {}
        self._offset = 0

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def add(self, name: str, size: int, crc32: int, chunks: Iterable[bytes]) -> None:
        """Write one member. Raises ``ContentChanged`` where the chunks are not what size and CRC promise."""
        if not is_allowed(name) or name in self._members:
            raise BackupError(f"a package cannot have a member {name!r}, or not twice")
        member = Member(name, self._offset, size, crc32)
        self._file.write(local_header(member))
        written, found = 0, 0
        for chunk in chunks:
            written += len(chunk)
            found = zlib.crc32(chunk, found)
            self._file.write(chunk)
        if (written, found) != (size, crc32):
            raise ContentChanged(f"the content of {name} changed while it was read", hint="try again")
        self._members[name] = member
        self._offset = member.end

    def finish(self, manifest: bytes, signature: bytes = b"") -> None:
        """Write signature, manifest, directory and the end, whose comment carries the manifest's hash."""
        if signature:
            self.add(SIGNATURE, len(signature), zlib.crc32(signature), [signature])
        self.add(MANIFEST, len(manifest), zlib.crc32(manifest), [manifest])
        directory_bytes = 0
        for member in self._members.values():
            entry = central_header(member)
            directory_bytes += len(entry)
            self._file.write(entry)
        self._file.write(_tail(len(self._members), self._offset, directory_bytes, hashlib.sha256(manifest).hexdigest()))


class ContainerReader:
    """Finds the members of a package. Raises ``PackageDamaged`` for any byte that the writer would not have written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.members: dict[str, Member] = {}
        count, directory_start, directory_bytes, self.manifest_sha256 = self._read_tail()
        self._read_directory(count, directory_start, directory_bytes)
        if MANIFEST not in self.members:
            raise PackageDamaged("the package has no manifest.json")
        last = [SIGNATURE, MANIFEST] if SIGNATURE in self.members else [MANIFEST]
        if list(self.members)[-len(last) :] != last:
            raise PackageDamaged("the manifest is not where the package ends")

    def chunks(self, name: str) -> Iterator[bytes]:
        """Read a member in pieces. Whether they are what was written, only a hash tells."""
        member = self.members[name]
        position = member.start
        while position < member.end:
            self._file.seek(position)
            chunk = self._file.read(min(COPY_BYTES, member.end - position))
            if not chunk:
                raise PackageDamaged(f"{name} is cut short")
            position += len(chunk)
            yield chunk

    def _read_tail(self) -> tuple[int, int, int, str]:
        size = self._file.seek(0, 2)
        if size < _TAIL_BYTES:
            raise PackageDamaged("the file is cut short, or no package")
        self._file.seek(size - _TAIL_BYTES)
        tail = self._file.read(_TAIL_BYTES)
        fields = _END64.unpack_from(tail)
        count, directory_bytes, directory_start = fields[7:10]
        sha256 = tail[-64:].decode("ascii", "replace")
        if directory_start + directory_bytes != size - _TAIL_BYTES or directory_bytes > MAX_DIRECTORY_BYTES:
            raise PackageDamaged("the end of the file is not that of a package; it may be cut short")
        if not re.fullmatch("[0-9a-f]{64}", sha256) or tail != _tail(count, directory_start, directory_bytes, sha256):
            raise PackageDamaged("the end of the file is not that of a package; it may be cut short")
        return count, directory_start, directory_bytes, sha256

    def _read_directory(self, count: int, start: int, size: int) -> None:
        position, end = start, start + size
        following = 0
        while position < end:
            self._file.seek(position)
            entry = self._file.read(MAX_HEADER_BYTES)
            member = parse_central(entry)
            header = central_header(member)
            if not entry.startswith(header) or position + len(header) > end or member.offset != following:
                raise PackageDamaged(f"the directory entry of {member.name} is damaged")
            self._file.seek(member.offset)
            if self._file.read(member.start - member.offset) != local_header(member) or member.end > start:
                raise PackageDamaged(f"the header of {member.name} is damaged")
            if member.name in self.members:
                raise PackageDamaged(f"{member.name} is there twice")
            self.members[member.name] = member
            following = member.end
            position += len(header)
        if (following, len(self.members)) != (start, count):
            raise PackageDamaged("the package holds something that its directory does not list")


def parse_central(entry: bytes) -> Member:
    """Read what begins as a directory entry. That every byte of it is right, ``central_header`` shows."""
    if len(entry) < _CENTRAL.size:
        raise PackageDamaged("the directory is cut short")
    fields = _CENTRAL.unpack_from(entry)
    name_end = _CENTRAL.size + fields[10]
    if len(entry) < name_end + _CENTRAL_EXTRA.size:
        raise PackageDamaged("the directory is cut short")
    try:
        name = entry[_CENTRAL.size : name_end].decode()
    except UnicodeDecodeError as error:
        raise PackageDamaged("a member's name is not UTF-8") from error
    if not is_allowed(name):
        raise PackageDamaged(f"a package has no member {name!r}")
    size, _, offset = _CENTRAL_EXTRA.unpack_from(entry, name_end)[2:]
    return Member(name, offset, size, fields[7])


def parse_local(header: bytes, offset: int) -> Member | None:
    """Read what begins as a member's own header, ``offset`` bytes into the file; None where it is none."""
    if len(header) < _LOCAL.size + _LOCAL_EXTRA.size:
        return None
    fields = _LOCAL.unpack_from(header)
    name = header[_LOCAL.size : _LOCAL.size + fields[9]].decode("utf-8", "replace")
    if not is_allowed(name) or len(header) < _LOCAL.size + fields[9] + _LOCAL_EXTRA.size:
        return None
    member = Member(name, offset, _LOCAL_EXTRA.unpack_from(header, _LOCAL.size + fields[9])[2], fields[6])
    return member if header.startswith(local_header(member)) else None


def local_header(member: Member) -> bytes:
    name = member.name.encode()
    extra = _LOCAL_EXTRA.pack(1, 16, member.size, member.size)
    fixed = (b"PK\3\4", _VERSION, _UTF8, 0, 0, _DATE, member.crc32, _FILLED, _FILLED, len(name), len(extra))
    return _LOCAL.pack(*fixed) + name + extra


def central_header(member: Member) -> bytes:
    name = member.name.encode()
    extra = _CENTRAL_EXTRA.pack(1, 24, member.size, member.size, member.offset)
    return (
        _CENTRAL.pack(
            *(b"PK\1\2", _UNIX, _VERSION, _UTF8, 0, 0, _DATE, member.crc32, _FILLED, _FILLED),
            *(len(name), len(extra), 0, 0, 0, _ATTRIBUTES, _FILLED),
        )
        + name
        + extra
    )


def _tail(count: int, directory_start: int, directory_bytes: int, manifest_sha256: str) -> bytes:
    comment = _COMMENT_PREFIX + manifest_sha256.encode()
    return (
        _END64.pack(b"PK\6\6", _END64.size - 12, _UNIX, _VERSION, 0, 0, count, count, directory_bytes, directory_start)
        + _LOCATOR64.pack(b"PK\6\7", 0, directory_start + directory_bytes, 1)
        + _END.pack(b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, _FILLED, _FILLED, len(comment))
        + comment
    )
