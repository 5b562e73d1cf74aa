"""Settings of the test suite."""

from core.settings import *  # noqa: F403
from core.settings import STORAGES

SECRET_KEY = "of the tests"
# Fast, and next to it the one that seed_demo's password is hashed with.
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.MD5PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
SECURE_SSL_REDIRECT = False
# No test touches the files of a real system. Those that need a file system bring a directory of their own.
_MEMORY = {"BACKEND": "django.core.files.storage.InMemoryStorage"}
STORAGES = {**STORAGES, "default": _MEMORY, "backups": _MEMORY}
