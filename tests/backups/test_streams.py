"""Closed, full and narrow streams change nothing of what a command does."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from documents.models import Document
from tests.backups.conftest import run


@pytest.mark.parametrize("streams", ["<&-", ">&-", "2>&-", ">&- 2>&-", ">/dev/full", "2>/dev/full", "2>&1 | true"])
@pytest.mark.parametrize(("command", "code"), [("create_backup", 0), ("restore_backup nowhere --json", 2)])
def test_streams_do_not_change_what_is_done(shell: dict[str, str], command: str, code: int, streams: str) -> None:
    line = f"set -o pipefail; {sys.executable} manage.py {command} {streams}"
    buffered = shell | {"PYTHONUNBUFFERED": ""}  # so that Python has something left to write as it ends
    done = subprocess.run(["bash", "-c", line], env=buffered, capture_output=True, text=True, timeout=60)
    assert done.returncode == code
    assert not any(words in done.stderr for words in ("Traceback", "Exception ignored"))


@pytest.mark.parametrize(
    "encoding",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}],
)
def test_what_an_encoding_lacks_is_written_out(shell: dict[str, str], encoding: dict[str, str]) -> None:
    Document.objects.filter(number="SOP-2026-0001").update(title="Sp\u00fclen \U0001f6bf")
    done = run(shell | encoding, "validate_restore", "latest", "--json", capture_output=True)
    assert done.returncode == 3
    assert "Sp\u00fclen \U0001f6bf" in [finding["found"] for finding in json.loads(done.stdout)["findings"]]
    assert "\\u00fc" in done.stdout
