"""The one reader of ``settings.BACKUPS``. Settings are read when used, so that ``override_settings`` works."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

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


def read() -> Configuration:
    """Read ``settings.BACKUPS``. Raises ``BackupError`` for a key that does not exist."""
    given = getattr(settings, "BACKUPS", {})
    known = {field.name.upper() for field in fields(Configuration)}
    if unknown := sorted(set(given) - known):
        raise BackupError(
            f"settings.BACKUPS has no key {unknown[0]!r}", hint=f"the keys are {', '.join(sorted(known))}"
        )
    values = {key.lower(): value for key, value in given.items()}
    for key in ("config_root", "signing_key_file"):
        if values.get(key):
            values[key] = Path(values[key])
    return Configuration(**values)
