"""The one reader of ``settings.BACKUPS``. Settings are read when used, so that ``override_settings`` works."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings

from backups.errors import BackupError


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """The keys of ``settings.BACKUPS``, in lower case, with their defaults."""

    storage: str = "backups"
    """Alias in ``STORAGES`` of the place where packages are kept."""
    exclude: Sequence[str] = ()
    """Labels of models that are left out of every package, each named there with its row count."""
    append_only: Sequence[str] = ()
    """Labels of models whose rows ``replace`` never deletes and whose newer rows are no difference."""
    config_root: Path = Path()
    """Directory that ``config_files`` are relative to."""
    config_files: Sequence[str] = ()
    """Configuration files that every package carries, where they exist."""
    demo_command: str = ""
    """Management command that fills a scratch system for ``recovery_drill --demo``."""
    sensitive: Sequence[str] = (
        *("password", "passphrase", "secret", "token", "api_key", "private_key", "credential", "session_key"),
    )
    """A field whose name, or whose model's, contains one of these is shown in findings as ``[redacted]``."""
    show_values: bool = True
    """Whether findings show the values of the other fields; False redacts all, and what rows are known by."""
    recipients: Sequence[str] = ()
    """Public keys of age or SSH that every package is encrypted to."""
    signing_key_file: Path | None = None
    """Private Ed25519 key that packages are signed with."""
    trusted_keys: Sequence[str] = ()
    """Public Ed25519 keys. Where there are any, packages that none of them has signed are refused."""
    drill_days: int = 90
    """``check --deploy`` complains where no drill has succeeded for so many days."""
    compression_level: int = 3
    """zstd's level. Above 3 the time grows faster than the package shrinks."""

    def hides(self, label: str, field: str) -> bool:
        """Return whether nobody may be told what is in a field of a model."""
        name = f"{label.rpartition('.')[2]}.{field}".lower()
        return not self.show_values or any(word.lower() in name for word in self.sensitive)


def is_text(value: Any) -> bool:
    """Return whether a value is text that can be written down; what is not UTF-8 in the environment cannot."""
    try:
        return isinstance(value, str) and bool(value.encode() or True)
    except UnicodeEncodeError:
        return False


_MEANT: dict[str, tuple[Callable[[Any], bool], str]] = {
    "str": (is_text, "a string"),
    "Sequence[str]": (lambda value: isinstance(value, list | tuple) and all(map(is_text, value)), "a list of strings"),
    "Path": (lambda value: isinstance(value, str | Path), "a path"),
    "Path | None": (lambda value: isinstance(value, str | Path | None), "a path, or None"),
    "bool": (lambda value: isinstance(value, bool), "True or False"),
    "days": (lambda value: type(value) is int and 0 <= value <= 36_500, "a number of days from 0 to 36500"),
    "level": (lambda value: type(value) is int and 1 <= value <= 22, "a whole number from 1 to 22"),
}
"""By the type of a key, or by its purpose: what it may be, and that in words."""
_PURPOSES = {"drill_days": "days", "compression_level": "level"}


def read() -> Configuration:
    """Read ``settings.BACKUPS``. Raises ``BackupError`` for a key that does not exist, and for a value of no use."""
    given = getattr(settings, "BACKUPS", {})
    if not isinstance(given, Mapping):
        raise BackupError(f"settings.BACKUPS is {_shown(given)}", hint="write a dict, or nothing at all")
    known = {field.name.upper(): field for field in fields(Configuration)}
    if unknown := [key for key in given if key not in known]:
        raise BackupError(
            f"settings.BACKUPS has no key {unknown[0]!r}", hint=f"the keys are {', '.join(sorted(known))}"
        )
    values: dict[str, Any] = {}
    for key, value in given.items():
        name = known[key].name
        kind = _PURPOSES.get(name, str(known[key].type))
        is_meant, words = _MEANT[kind]
        if not is_meant(value):
            raise BackupError(f"BACKUPS[{key!r}] is {_shown(value)}", hint=f"write {words}")
        if kind == "Path":
            values[name] = Path(value)
        elif kind == "Path | None":
            values[name] = Path(value) if value else None
        else:
            values[name] = value
    for key in ("EXCLUDE", "APPEND_ONLY"):
        for label in values.get(key.lower(), ()):
            _require_model(key, label)
    return Configuration(**values)


def _shown(value: Any) -> str:
    """Say what a value is, and no text of it: somebody may have put a secret in the wrong place."""
    if value is None or isinstance(value, int | float):
        return repr(value)
    kind = f"a {type(value).__name__}"
    if isinstance(value, str):
        return kind if is_text(value) else f"{kind} that is not UTF-8"
    wrong = [one for one in value if not is_text(one)] if isinstance(value, list | tuple) else []
    return f"{kind} that holds {_shown(wrong[0])}" if wrong else kind


def _require_model(key: str, label: str) -> None:
    try:
        apps.get_model(label)
    except (LookupError, ValueError) as error:
        raise BackupError(
            f"BACKUPS[{key!r}] names {label!r}, which is not a model", hint="write app_label.ModelName"
        ) from error
