"""What of a damaged package is whole: its members one by one, as their own headers tell, whatever its directory says.

For messages alone. Nothing that is found here is restored: a member is whole if its checksum of 32 bits fits, which
tells an accident from none, and says nothing about intent.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import BinaryIO

from backups.errors import PackageDamaged
from backups.package.container import (
    CENTRAL_BEGINNING,
    COPY_BYTES,
    END_BEGINNING,
    LOCAL_BEGINNING,
    MAX_HEADER_BYTES,
    Member,
    central_header,
    parse_central,
    parse_local,
)

READINGS = 4
"""How often as many bytes are read as the file has: what was made to be searched for ever is not."""
NAMES = 20
"""Names in a message."""


@dataclass
class Survey:
    """Members by name, in the order of the package; ``elsewhere`` says what is damaged beside them."""

    whole: dict[str, Member] = field(default_factory=dict)
    damaged: dict[str, None] = field(default_factory=dict)
    elsewhere: str = ""

    def __str__(self) -> str:
        names = list(self.damaged)
        more = f" and {len(names) - NAMES} more" if len(names) > NAMES else ""
        what = f"{', '.join(names[:NAMES])}{more}" if names else self.elsewhere
        return f"damaged: {what}; {len(self.whole)} of {len(names) + len(self.whole)} members are whole"

    def readable(self) -> str:
        """List what is whole: models with their chunks, and the numbers of the files."""
        parts: list[str] = []
        chunks, damaged = (_chunks(names) for names in (self.whole, self.damaged))
        for label, count in chunks.items():
            total = count + damaged[label]
            parts.append(label if total == count else f"{label} ({count} of {total} chunks)")
        for kind, what in (("files/", "stored files"), ("config/", "configuration files")):
            if count := sum(name.startswith(kind) for name in self.whole):
                parts.append(f"{count} {what}")
        return ", ".join([*parts, *(name for name in self.whole if "/" not in name)]) or "nothing"


def _chunks(names: Iterable[str]) -> Counter[str]:
    return Counter(name.split("/")[1] for name in names if name.startswith("data/"))


def survey(file: BinaryIO) -> Survey:
    """Look for every member in a file, and tell which are whole."""
    return _Surveyor(file).run()


class _Surveyor:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = file.seek(0, 2)
        self._budget = READINGS * self._size + COPY_BYTES
        self._found = Survey()

    def run(self) -> Survey:
        found = self._found
        directory = self._walk()
        if directory is None:
            found.elsewhere = found.elsewhere or "the file, which is cut short"
            return found
        listed, is_complete = self._listed(directory)
        offsets = {member.offset for member in found.whole.values()}
        lost = (one.name for one in listed if one.name not in found.whole and one.offset not in offsets)
        found.damaged |= dict.fromkeys(lost)
        # Where a member's own header and its content agree, it is the directory that is wrong.
        odd = [name for name, member in found.whole.items() if member not in listed]
        if odd:
            found.elsewhere = f"the directory entry of {odd[0]}"
        elif not is_complete:
            found.elsewhere = "the directory"
        found.elsewhere = found.elsewhere or "the end of the file"
        return found

    def _walk(self) -> int | None:
        """Go from header to header; return where the directory begins, or None where there is none."""
        position = 0
        while self._budget > 0:
            beginning = self._read(position, MAX_HEADER_BYTES)
            if beginning.startswith(CENTRAL_BEGINNING):
                return position
            member = parse_local(beginning, position)
            if member is None:
                self._found.elsewhere = f"what follows {next(reversed(self._found.whole), 'the beginning')}"
                position = self._next(position + 1)
            elif self._is_whole(member):
                self._found.whole[member.name] = member
                position = member.end
            else:
                self._found.damaged[member.name] = None
                position = self._next(member.start)
            if position >= self._size:
                return None
        return None

    def _next(self, position: int) -> int:
        """Find the next thing that looks like a header."""
        longest = max(len(LOCAL_BEGINNING), len(CENTRAL_BEGINNING))
        while position < self._size and self._budget > 0:
            data = self._read(position, COPY_BYTES)
            places = [place for what in (LOCAL_BEGINNING, CENTRAL_BEGINNING) if (place := data.find(what)) >= 0]
            if places:
                return position + min(places)
            if len(data) < COPY_BYTES:
                return self._size
            position += COPY_BYTES - longest
        return self._size

    def _listed(self, position: int) -> tuple[dict[Member, None], bool]:
        """Read the directory as far as it can be read; say whether that is to its end."""
        listed: dict[Member, None] = {}
        while self._budget > 0:
            entry = self._read(position, MAX_HEADER_BYTES)
            try:
                member = parse_central(entry)
            except PackageDamaged:
                return listed, entry.startswith(END_BEGINNING)
            if not entry.startswith(header := central_header(member)):
                break
            listed[member] = None
            position += len(header)
        return listed, False

    def _is_whole(self, member: Member) -> bool:
        if member.end > self._size:
            return False
        position, crc32 = member.start, 0
        while position < member.end and self._budget > 0:
            data = self._read(position, min(COPY_BYTES, member.end - position))
            crc32 = zlib.crc32(data, crc32)
            position += len(data)
        return position == member.end and crc32 == member.crc32

    def _read(self, position: int, size: int) -> bytes:
        self._file.seek(position)
        data = self._file.read(size)
        self._budget -= max(len(data), MAX_HEADER_BYTES)
        return data
