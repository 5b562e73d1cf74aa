from __future__ import annotations

import os
import subprocess
import sys

import pytest
from django.conf import settings

DOCUMENTED = {
    "DJANGO_SECRET_KEY": "Zb7mW1qKxv0TtPz9sYc4RgLd8HfUaEoJ2nQi6VwXk3BpMrCyN5",
    "DJANGO_ALLOWED_HOSTS": "edms.example.com",
}


def check(**environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DJANGO_")}
    return subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        cwd=settings.BASE_DIR,
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_deployment_check_is_clean_with_documented_variables() -> None:
    result = check(**DOCUMENTED)
    assert result.returncode == 0, result.stderr


def test_deployment_check_names_a_missing_secret_key() -> None:
    result = check()
    assert result.returncode != 0
    assert "security.W009" in result.stderr


def test_switch_that_is_no_switch_is_refused() -> None:
    result = check(**DOCUMENTED, DJANGO_DEBUG="yes")
    assert result.returncode != 0
    assert "DJANGO_DEBUG is 'yes'; hint: set it to 0 or 1" in result.stderr


@pytest.mark.parametrize("name", ["DATABASE_URL", "MEDIA_ROOT", "BACKUPS_ROOT", "EDMS_ADMIN_PASSWORD", *DOCUMENTED])
def test_variables_are_documented(name: str) -> None:
    source = (settings.BASE_DIR / "core" / "settings.py").read_text()
    assert f"\n{name} " in source.split('"""')[1]
