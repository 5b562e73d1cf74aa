"""A sample of what ``python -m tests.fuzz`` does for ten minutes a reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from backups.package import passphrase
from tests.fuzz.guided import Fuzzer
from tests.fuzz.readers import readers

NAMES = [
    *("package", "survey", "manifest", "signature", "chunk", "index", "record", "age", "passphrase"),
    *("json", "jsonl", "xml", "yaml", "archive", "anything"),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_reader_reads_or_refuses(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passphrase, "WORK_FACTOR", 1)  # put back: readers() sets them
    monkeypatch.setattr(passphrase, "MAX_WORK_FACTOR", 3)
    known = readers(tmp_path)
    assert list(known) == NAMES
    fuzzer = Fuzzer(known[name], seed=0)
    fuzzer.run(seconds=20, inputs=150)
    assert fuzzer.broken == {}
    assert fuzzer.outcomes["exit 4"] > 0 or name == "survey"
