"""Feed the readers with damaged and lying packages for a while: ``python -m tests.fuzz --minutes 10 --engine sqlite``.

Each package has to be refused, rolled back or proved; the command ends with 1, and says how to make it again, for one
that did anything else.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import django

GOLDEN = Path(__file__).parent.parent / "golden" / "edms-package-1.zip"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--engine", default="sqlite", choices=["sqlite", "postgresql", "mariadb"])
    parser.add_argument("--seed", type=int, default=0, help="number of the first package")
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    with tempfile.TemporaryDirectory() as directory:
        outcomes, broken = run(options.engine, options.minutes * 60, options.seed, Path(directory))
    for (kind, outcome), count in sorted(outcomes.items()):
        sys.stdout.write(f"{kind:<10} {outcome:<24} {count:>8}\n")
    for line in broken:
        sys.stdout.write(f"BROKEN {line}\n")
    return 1 if broken else 0


def run(engine: str, seconds: float, seed: int, directory: Path) -> tuple[Counter[tuple[str, str]], list[str]]:
    from tests.systems import Engine, System

    outcomes: Counter[tuple[str, str]] = Counter()
    broken: list[str] = []
    source = Engine(engine, directory)
    ends = time.monotonic() + seconds
    try:
        system = System(engine, source.fresh(), directory / "system")
        with system.active():
            while time.monotonic() < ends:
                for kind, outcome in (("damaged", damaged(seed, directory)), ("lying", lying(seed, directory, system))):
                    outcomes[kind, outcome.splitlines()[0][:24]] += 1
                    if outcome.startswith("BROKEN"):
                        broken.append(f"{kind} --seed {seed}: {outcome}")
                seed += 1
    finally:
        source.close()
    return outcomes, broken


def damaged(seed: int, directory: Path) -> str:
    """Change bytes anywhere, and open and check what that gives."""
    from backups.errors import BackupError
    from backups.package.reader import PackageReader
    from backups.reporting import NoProgress

    chance = random.Random(seed)
    data = bytearray(GOLDEN.read_bytes())
    original = bytes(data)
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(len(data))
        kind = chance.randrange(4)
        if kind == 0:
            data[at] = chance.randrange(256)
        elif kind == 1:
            del data[at : at + chance.randint(1, 2000)]
        elif kind == 2:
            data[at:at] = chance.randbytes(chance.randint(1, 50))
        else:
            data[at : at + 8] = chance.choice([b"\xff" * 8, b"\0" * 8, chance.randbytes(8)])
    if bytes(data) == original:
        return "unchanged"
    path = directory / "damaged.zip"
    path.write_bytes(data)
    try:
        with PackageReader(path) as package:
            package.check(NoProgress())
    except BackupError as error:
        return f"exit {error.exit_code}"
    except Exception as error:  # noqa: BLE001  anything else is what this looks for
        return f"BROKEN {type(error).__name__}: {error}"
    return "BROKEN nobody noticed"


def lying(seed: int, directory: Path, system: object) -> str:
    """Restore a package with other records, and look whether the system is as before, or proved."""
    from tests import oracle
    from tests.fuzz.mutations import random_lines, rewrite

    package = rewrite(GOLDEN, directory / "lying.zip", random_lines(seed))
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
