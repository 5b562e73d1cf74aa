"""The errors of the engine, and the exit code and hint that each stands for.

    BackupError                 1
    ├── UsageError              2   the call contradicts itself
    ├── DifferencesFound        3   the systems differ, or a restore was rolled back because of findings
    ├── PackageDamaged          4   unreadable, truncated, or failing its hashes
    ├── PackageLocked           4   encrypted, and no key that was given opens it
    ├── PackageUntrusted        4   not signed, or signed with a key that is not trusted
    ├── PackageUnsupported      5   sound, but not for this code: format version or schema
    ├── TargetNotReady          6   pending migrations, tables without transactions, missing confirmation
    │   └── OperationRunning    6   another operation holds the lock
    └── Cancelled               7   the operator said no

Messages are lower case, name the model, row, file or path, and end without a full stop.
"""

from __future__ import annotations

from typing import Any


class BackupError(Exception):
    """An operation of the engine that could not be done."""

    exit_code = 1
    hint = ""
    report: Any = None
    """What the operation had found out before it failed."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint or self.hint


class UsageError(BackupError):
    exit_code = 2
    hint = "see --help"


class DifferencesFound(BackupError):
    exit_code = 3


class PackageDamaged(BackupError):
    exit_code = 4
    hint = "use another package; list_backups shows what there is"
    survey: Any = None
    """Which members are whole, where the package could not even be opened."""


class PackageLocked(BackupError):
    exit_code = 4
    hint = "give the key that fits with --identity FILE, in BACKUPS_IDENTITY, or on a terminal"


class PackageUntrusted(BackupError):
    exit_code = 4
    hint = "add the key to BACKUPS['TRUSTED_KEYS'] if you know whose it is; inspect_backup shows it"


class PackageUnsupported(BackupError):
    exit_code = 5


class TargetNotReady(BackupError):
    exit_code = 6


class OperationRunning(TargetNotReady):
    hint = "wait until it has ended, then try again"


class Cancelled(BackupError):
    exit_code = 7
