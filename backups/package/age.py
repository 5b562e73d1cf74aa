"""Packages as age files (https://c2sp.org/age): encrypted to public keys or a passphrase, as streams."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pyrage
from pyrage import ssh, x25519

from backups.errors import PackageDamaged, PackageLocked, UsageError

Recipient = x25519.Recipient | ssh.Recipient
Identity = x25519.Identity | ssh.Identity

HEADER = b"age-encryption.org/v1\n"
MAX_HEADER_BYTES = 256 * 1024
"""Some hundreds of recipients have room, of whatever kind."""

_NO_KEY = "No matching keys"
_PRIVATE = re.compile("AGE-SECRET-KEY-|PRIVATE KEY", re.IGNORECASE)


def is_encrypted(path: Path) -> bool:
    """Return whether a file is an age file, whatever its name is."""
    with path.open("rb") as file:
        return file.read(len(HEADER)) == HEADER


def parse_recipient(text: str) -> Recipient:
    """Read a public key: ``age1…``, ``ssh-ed25519 …`` or ``ssh-rsa …``.

    Raises ``UsageError``, which does not repeat the text: somebody may have taken a private key for a public one.
    """
    if _PRIVATE.search(text):
        raise UsageError(
            "a recipient is a private key", hint="give the public key, and replace this one: it has been shown"
        )
    try:
        if text.startswith("age1"):
            return x25519.Recipient.from_str(text.strip())
        return ssh.Recipient.from_str(text.strip())
    except pyrage.RecipientError:
        raise UsageError(
            "a recipient is not a public key of age or SSH", hint="write age1…, ssh-ed25519 … or ssh-rsa …"
        ) from None


def parse_identities(data: bytes, source: str) -> list[Identity]:
    """Read private keys: an identity file of age, or a private key of SSH. Raises ``UsageError`` naming ``source``."""
    try:
        if b"-----BEGIN" in data:
            return [ssh.Identity.from_buffer(data.strip() + b"\n")]
        lines = [line.strip() for line in data.decode().splitlines()]
        identities: list[Identity] = [
            x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")
        ]
    except (pyrage.IdentityError, UnicodeDecodeError):
        identities = []
    if not identities:
        raise UsageError(
            f"{source} holds no private key that can be used",
            hint="give an identity of age (AGE-SECRET-KEY-1…), or a private key of SSH without a passphrase",
        ) from None
    return identities


def generate() -> tuple[str, str]:
    """Make a public key and its private key."""
    identity = x25519.Identity.generate()
    return str(identity.to_public()), str(identity)


def encrypt(plain: BinaryIO, sealed: BinaryIO, recipients: Sequence[Recipient]) -> None:
    """Encrypt a stream to public keys."""
    source, target = _Watched(plain), _Watched(sealed)
    try:
        pyrage.encrypt_io(source, target, recipients)  # type: ignore[arg-type]
    except (pyrage.EncryptError, OSError):
        source.require_sound()
        target.require_sound()
        raise
    target.require_sound()


def decrypt(sealed: BinaryIO, plain: BinaryIO, identities: Sequence[Identity]) -> None:
    """Decrypt a stream. Raises ``PackageLocked`` where no identity fits, ``PackageDamaged`` for a changed file."""
    _require_short_header(sealed)
    source, target = _Watched(sealed), _Watched(plain)
    try:
        pyrage.decrypt_io(source, target, identities)  # type: ignore[arg-type]
    except (pyrage.DecryptError, OSError) as error:
        source.require_sound()
        target.require_sound()
        if _NO_KEY in str(error):
            raise PackageLocked("no key that was given opens the package") from None
        raise PackageDamaged(f"the encrypted package is cut short or changed: {error}") from None
    target.require_sound()


def _require_short_header(sealed: BinaryIO) -> None:
    """Raise ``PackageDamaged`` for a header without end, which age would read again with every block of it."""
    start = sealed.tell()
    if b"\n---" not in sealed.read(MAX_HEADER_BYTES):
        raise PackageDamaged("the header of the encrypted package is damaged, or cut short")
    sealed.seek(start)


class _Watched:
    """A file that remembers why it failed: pyrage makes a text of it, and drops the error of its last write."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._error: BaseException | None = None

    def read(self, size: int = -1) -> bytes:
        with self._remembering():
            return self._file.read(size)

    def write(self, data: bytes) -> int:
        self.require_sound()
        with self._remembering():
            return self._file.write(data)

    def flush(self) -> None:
        with self._remembering():
            self._file.flush()

    def require_sound(self) -> None:
        """Raise again what the file has raised."""
        if self._error is not None:
            raise self._error

    @contextmanager
    def _remembering(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self._error = error
            raise
