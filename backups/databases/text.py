"""Rows as text, one to a line with tabs between its values, as COPY and LOAD DATA read them. Knows no Django.

Null is ``\\N``; a backslash stands before itself and before whatever would end a value or a line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

_NULL = r"\N"
_WRITE: dict[type, Callable[[Any], str]] = {
    str: str,
    int: str,
    bool: lambda value: "1" if value else "0",
    type(None): lambda _: _NULL,
}
_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r", "\0": r"\0"})


def text_of(rows: Sequence[Sequence[Any]]) -> bytes | None:
    """Write rows as text; None where a value is not a text, a whole number, a boolean or null."""
    try:
        texts = [[_WRITE[value.__class__](value) for value in row] for row in rows]
    except KeyError:
        return None
    text = "\n".join(["\t".join(row) for row in texts])
    nulls = sum(row.count(None) for row in rows)
    separators = sum(map(len, rows)) - 1
    if text.count("\\") != nulls or text.count("\t") + text.count("\n") != separators or "\0" in text or "\r" in text:
        escaped = (
            [_NULL if value is None else _WRITE[value.__class__](value).translate(_ESCAPES) for value in row]
            for row in rows
        )
        text = "\n".join(["\t".join(row) for row in escaped])
    return f"{text}\n".encode()
