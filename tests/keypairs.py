"""Key pairs in files, as ssh-keygen makes them, for machines that do not have it."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)


class KeyPair:
    """A private key of SSH in a private file, with its public key, comment and fingerprint."""

    def __init__(self, path: Path, *, kind: str = "ed25519", passphrase: str = "") -> None:
        self.path = path
        self.name = f"backups@{path.name}"
        key = rsa.generate_private_key(65537, 2048) if kind == "rsa" else Ed25519PrivateKey.generate()
        if passphrase:  # in OpenSSH's own form this would need bcrypt
            closed = BestAvailableEncryption(passphrase.encode())
            path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, closed))
        else:
            path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
        path.chmod(0o600)
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        self.public = f"{public} {self.name}"
        digest = hashlib.sha256(base64.b64decode(public.split()[1])).digest()
        self.fingerprint = f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"
