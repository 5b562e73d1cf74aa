"""The digest of a table's content, which is the same for equal rows under any keys, in any order, on any engine.

A sum of hashes, so that the order of rows does not matter: see ``FORMAT.md``. It detects accidents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

MODULUS = 2**256


def sum_of(contents: Iterable[bytes]) -> int:
    """Add up the hashes of what rows say."""
    sha256, number = hashlib.sha256, int.from_bytes
    return sum([number(sha256(content).digest()) for content in contents])


def digest_of(total: int) -> str:
    """Write the sum of all rows as the table's digest."""
    return f"{total % MODULUS:064x}"
