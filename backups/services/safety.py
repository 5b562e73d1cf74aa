"""Whose safety backup is whose: it stays where its operation was committed, and goes where that was not.

The catalogue says so once the transaction is committed. Until then a note beside the packages does, for whoever finds
that the operation has died.
"""

from __future__ import annotations

import re
from contextlib import suppress

from backups import reports
from backups.errors import BackupError, UsageError
from backups.files import FileChanges, exists, save
from backups.services.catalogue import NAME, package_storage

NOTE = ".safety-"
"""How the notes' names begin; then comes the id of the operation's report."""
_KEY = re.compile("[0-9a-f]{32}")


def note(key: str, name: str) -> None:
    """Say under an operation's ``key`` which safety backup it is about to publish."""
    if exists(package_storage(), name):
        raise UsageError(f"{name} exists", hint="see that the clock is right; packages are never overwritten")
    save(package_storage(), f"{NOTE}{key}", [name.encode()])


def unsettled() -> list[str]:
    """Return the keys of operations that have notes: they run, have died, or were interrupted when all was done."""
    try:
        names = package_storage().listdir("")[1]
    except Exception:  # noqa: BLE001 - a storage has errors of its own; whoever needs its packages will tell
        return []
    return [key for name in names if name.startswith(NOTE) and _KEY.fullmatch(key := name.removeprefix(NOTE))]


def settle(key: str, changes: FileChanges, using: str, *, committed: bool) -> list[str]:
    """Let files and safety backup follow what became of an operation's transaction; return what could not be removed.

    Under the lock, so that the operation is this one or a dead one.
    """
    left = changes.keep() if committed else changes.take_back()
    with suppress(BackupError):  # where there is no place for packages, none was taken
        storage = package_storage()
        try:
            if storage.exists(f"{NOTE}{key}"):
                with storage.open(f"{NOTE}{key}", "rb") as file:
                    name = file.read().decode()  # in part, where the writer died; then nothing was published
                if NAME.fullmatch(name) and not committed and not reports.is_catalogued(name, using):
                    storage.delete(name)
                storage.delete(f"{NOTE}{key}")
        except OSError:  # the rest is settled all the same
            left.append(f"{NOTE}{key}")
    return left
