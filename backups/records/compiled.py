"""Functions written out for one table, as ``dataclasses`` does, in place of a loop over its columns for each row.

The source has only numbers and ``repr`` of names from models in it, never anything from a package or a database.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import CodeType
from typing import Any


def function(title: str, parameters: str, body: Sequence[str], scope: Mapping[str, Any]) -> Callable[..., Any]:
    """Define a function from the lines of its body. ``scope`` has what these name; tracebacks show ``title``."""
    source = "\n".join([f"def made({parameters}):", *(f"    {line}" for line in body)])
    namespace = dict(scope)
    exec(_code(source, title), namespace)  # noqa: S102
    made: Callable[..., Any] = namespace["made"]
    return made


@lru_cache(maxsize=1000)  # an operation reads each table several times: to compile took a tenth of a small one's time
def _code(source: str, title: str) -> CodeType:
    return compile(source, f"<{title}>", "exec")
