"""Settings of a project that is not ours: a library, with apps in wide use and none of our own but ``backups``."""

import os
from pathlib import Path

import dj_database_url

DIRECTORY = Path(os.environ["LIBRARY_ROOT"])
SECRET_KEY = "of a library"
USE_TZ = True
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.sites",
    "django.contrib.flatpages",
    "django.contrib.redirects",
    "django_celery_beat",
    "guardian",
    "rest_framework.authtoken",
    "simple_history",
    "taggit",
    "tests.stranger.library",
]
AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend", "guardian.backends.ObjectPermissionBackend"]
DATABASES = {"default": dj_database_url.parse(os.environ["DATABASE_URL"])}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
MEDIA_ROOT = DIRECTORY / "media"
SITE_ID = 1
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}

# All that it takes to have backups.
INSTALLED_APPS += ["backups"]
PACKAGES = {"location": DIRECTORY / "packages"}
STORAGES["backups"] = {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": PACKAGES}
