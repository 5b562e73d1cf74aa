"""Rows as text, one to a line with tabs between its values, as COPY and LOAD DATA read them. Knows no Django.

Null is ``\\N``; a backslash stands before itself and before whatever would end a value or a line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

NULL = r"\N"
_WRITE: dict[type, Callable[[Any], str]] = {
    str: str,
    int: str,
    bool: lambda value: "1" if value else "0",
    type(None): lambda _: NULL,
}
_ESCAPES = {"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"}
_TRANSLATED = str.maketrans(_ESCAPES)


class NoText(Exception):
    """Rows with a value whose text is the driver's affair. A NUL character is, which not every database takes."""


def text_of(rows: Sequence[Sequence[Any]]) -> bytes:
    """Write rows as text. Raises ``NoText`` where a value is not a plain text, a whole number, a boolean or null."""
    try:
        lines = ["\t".join([_WRITE[value.__class__](value) for value in row]) for row in rows]
    except KeyError as error:
        raise NoText(f"a value of the type {error}") from error
    text = "\n".join([*lines, ""])
    if "\0" in text:
        raise NoText("a NUL character")
    nulls = sum([row.count(None) for row in rows])
    separators = sum(map(len, rows))
    if not _is_sound(text, nulls, separators):
        # Nearly always it is a backslash, in JSON.
        for number, row in enumerate(rows):
            if not _is_sound(lines[number], row.count(None), len(row) - 1):
                lines[number] = "\t".join(map(_escaped, row))
        text = "\n".join([*lines, ""])
    return text.encode()


def _is_sound(text: str, nulls: int, separators: int) -> bool:
    """Whether there is no character in a text that wants an escape, but for those that are not of values."""
    is_sound = text.count("\\") == nulls and text.count("\t") + text.count("\n") == separators
    return is_sound and "\r" not in text


def _escaped(value: Any) -> str:
    if value is None:
        return NULL
    text = _WRITE[value.__class__](value)
    return text.translate(_TRANSLATED) if any(map(text.__contains__, _ESCAPES)) else text
