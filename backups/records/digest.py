"""The digest of a table's content, which is the same for equal rows under any keys, in any order, on any engine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

MODULUS = 2**256


class ContentDigest:
    """A sum of hashes, so that the order of rows does not matter: see ``FORMAT.md``. It detects accidents."""

    def __init__(self) -> None:
        self._sum = 0

    def add(self, contents: Iterable[bytes]) -> None:
        """Take in what rows say."""
        sha256, number = hashlib.sha256, int.from_bytes
        self._sum += sum([number(sha256(content).digest()) for content in contents])

    def hexdigest(self) -> str:
        return f"{self._sum % MODULUS:064x}"
