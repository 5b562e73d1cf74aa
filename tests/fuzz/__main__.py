"""Feed what reads strangers' files with damaged and lying ones for a while: ``python -m tests.fuzz --minutes 10``.

Each reader gets so many minutes of processor time. What it is given has to be refused or read, a package to be
refused, rolled back or proved; the command ends with 1, and keeps the input, for one that did anything else.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import django

GOLDEN = Path(__file__).parent.parent / "golden" / "edms-package-1.zip"
RESTORE = "restore"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("readers", nargs="*", help=f"names of readers, and {RESTORE}; all without any")
    parser.add_argument("--minutes", type=float, default=10, help="of processor time, for each reader")
    parser.add_argument("--engine", default="sqlite", choices=["sqlite", "postgresql", "mariadb"], help=f"of {RESTORE}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()), help="directory for what broke one")
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    from tests.fuzz.guided import Fuzzer
    from tests.fuzz.readers import readers

    failed = False
    with tempfile.TemporaryDirectory() as directory:
        known = readers(Path(directory))
        if unknown := set(options.readers) - known.keys() - {RESTORE}:
            parser.error(f"there is no reader {min(unknown)!r}: {', '.join(known)}")
        for name in options.readers or [*known, RESTORE]:
            begun = time.process_time()
            if name == RESTORE:
                outcomes, broken = restores(options.engine, options.minutes * 60, options.seed, Path(directory))
                corpus = edges = 0
            else:
                fuzzer = Fuzzer(known[name], options.seed)
                fuzzer.run(options.minutes * 60)
                outcomes, corpus, edges = fuzzer.outcomes, len(fuzzer.corpus), len(fuzzer.edges)
                broken = []
                for number, (outcome, data) in enumerate(fuzzer.broken.items()):
                    kept = options.keep / f"broke-{name}-{options.seed}-{number}"
                    kept.write_bytes(data)
                    broken.append(f"{outcome} ({kept})")
            told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())[:6])
            minutes = (time.process_time() - begun) / 60
            sys.stdout.write(
                f"| {name} | {minutes:.1f} | {outcomes.total()} | {corpus} | {edges} | {told} | {len(broken)} |\n"
            )
            for line in broken:
                sys.stdout.write(f"BROKEN {name}: {line}\n")
            sys.stdout.flush()
            failed = failed or bool(broken)
    return 1 if failed else 0


def restores(engine: str, seconds: float, seed: int, directory: Path) -> tuple[Counter[str], list[str]]:
    """Restore packages with other records, each of which has to be refused, rolled back or proved."""
    from tests.systems import Engine, System

    outcomes: Counter[str] = Counter()
    broken: list[str] = []
    source = Engine(engine, directory)
    ends = time.process_time() + seconds
    try:
        system = System(engine, source.fresh(), directory / "system")
        with system.active():
            while time.process_time() < ends:
                outcome = lying(seed, directory, system)
                outcomes[outcome.splitlines()[0][:24]] += 1
                if outcome.startswith("BROKEN"):
                    broken.append(f"--seed {seed}: {outcome}")
                seed += 1
    finally:
        source.close()
    return outcomes, broken


def lying(seed: int, directory: Path, system: object) -> str:
    """Restore a package with other records, and look whether the system is as before, or proved."""
    from tests import oracle
    from tests.fuzz.mutations import random_lines, rewrite

    package = rewrite(GOLDEN, directory / "lying.zip", random_lines(seed, most=0.01))
    before = oracle.rows(ignore={"core.auditevent"})
    try:
        restored = system.run("restore_backup", str(package), "--no-safety-backup", "--mode", "replace", "--no-input")  # type: ignore[attr-defined]
        if restored.code == 0:
            proved = system.run("validate_restore", str(package)).code  # type: ignore[attr-defined]
            return "proved" if proved == 0 else "BROKEN proved, and validation differs"
    except Exception as error:  # noqa: BLE001  anything else is what this looks for
        return f"BROKEN {type(error).__name__}: {error}"
    if oracle.rows(ignore={"core.auditevent"}) != before:
        return f"BROKEN exit {restored.code}, and something changed"
    return f"exit {restored.code}"


if __name__ == "__main__":
    sys.exit(main())
