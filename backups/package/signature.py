"""Who made a package: an Ed25519 signature over the manifest, which names every other byte by its hash.

The form is OpenSSH's (PROTOCOL.sshsig), so that ``ssh-keygen -Y verify`` can check it without this project. It carries
the public key. Ed25519 is deterministic: one key and one manifest make one signature.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import textwrap
from dataclasses import dataclass
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from backups.errors import PackageDamaged
from backups.package.container import SIGNATURE

NAMESPACE = b"edms-package"
"""What the signature is for: one that the same key gave to anything else does not count."""

_MAGIC = b"SSHSIG"
_KEY_TYPE = b"ssh-ed25519"
_HASH = b"sha512"
_KEY_BYTES = 32
_RAW_BYTES = 64
_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
_LINE = 70  # as ssh-keygen breaks them


def _string(data: bytes) -> bytes:
    """Encode as RFC 4251's ``string``."""
    return len(data).to_bytes(4, "big") + data


@dataclass(frozen=True, slots=True)
class Signature:
    """A public key and what its owner signed with it, 32 and 64 bytes."""

    key: bytes
    raw: bytes

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a signature in its one form. Raises ``PackageDamaged``."""
        lines = data.decode("ascii", "replace").split("\n")
        try:
            blob = base64.b64decode("".join(lines[1:-2]), validate=True)
        except (binascii.Error, ValueError) as error:
            raise PackageDamaged(f"{SIGNATURE} is not a signature") from error
        key_start = len(_MAGIC) + 4 + 4 + len(_string(_KEY_TYPE)) + 4
        signature = cls(blob[key_start : key_start + _KEY_BYTES], blob[-_RAW_BYTES:])
        if signature.to_bytes() != data:
            raise PackageDamaged(f"{SIGNATURE} is not an Ed25519 signature in its canonical form")
        return signature

    def to_bytes(self) -> bytes:
        blob = (
            *(_MAGIC, (1).to_bytes(4, "big"), _string(public_blob(self.key)), _string(NAMESPACE), _string(b"")),
            *(_string(_HASH), _string(_string(_KEY_TYPE) + _string(self.raw))),
        )
        text = base64.b64encode(b"".join(blob)).decode()
        return "\n".join([_BEGIN, *textwrap.wrap(text, _LINE), _END, ""]).encode()

    def require_valid(self, manifest: bytes) -> None:
        """Raise ``PackageDamaged`` unless the key signed this manifest."""
        try:
            Ed25519PublicKey.from_public_bytes(self.key).verify(self.raw, _signed(manifest))
        except (InvalidSignature, ValueError) as error:
            raise PackageDamaged(f"{SIGNATURE} does not fit the manifest: one of them is not the original") from error

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.key)


def sign(manifest: bytes, key: Ed25519PrivateKey) -> Signature:
    """Sign a manifest."""
    return Signature(key.public_key().public_bytes_raw(), key.sign(_signed(manifest)))


def fingerprint(key: bytes) -> str:
    """Name a public key as ``ssh-keygen -l`` does."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(public_blob(key)).digest()).decode().rstrip("=")


def public_blob(key: bytes) -> bytes:
    return _string(_KEY_TYPE) + _string(key)


def _signed(manifest: bytes) -> bytes:
    digest = hashlib.sha512(manifest).digest()
    return _MAGIC + b"".join(map(_string, (NAMESPACE, b"", _HASH, digest)))


SIGNATURE_BYTES = len(Signature(bytes(_KEY_BYTES), bytes(_RAW_BYTES)).to_bytes())
