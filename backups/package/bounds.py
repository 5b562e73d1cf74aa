"""What one object may ask of memory: text of a gibibyte, but not a gibibyte of brackets."""

from __future__ import annotations

import re
from typing import AnyStr

from backups.errors import PackageDamaged

MAX_OBJECT_CHARACTERS = 1024 * 1024 * 1024
"""An object is held whole; no engine's value passes 1 GiB."""
MAX_VALUES = 20_000_000
"""In one object. Each is some 60 bytes of Python, and may be two in JSON."""
LARGE = 16 * 1024 * 1024
"""Smaller texts cannot hold too many values."""

_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\Z)', re.DOTALL)
_STRING_BYTES = re.compile(_STRING.pattern.encode(), re.DOTALL)


def require_few_values(text: AnyStr, place: str) -> None:
    """Raise ``PackageDamaged`` for JSON, or the beginning of some, whose values would fill the memory."""
    if len(text) < LARGE:
        return
    if isinstance(text, str):
        bare, marks = _STRING.sub("", text), (",", "[", "{")
        count = sum(map(bare.count, marks))
    else:
        raw = _STRING_BYTES.sub(b"", text)
        count = sum(map(raw.count, (b",", b"[", b"{")))
    if count > MAX_VALUES:
        raise PackageDamaged(f"{place} has more than {MAX_VALUES} values")
