"""Mutation that keeps what reaches new code: the inputs that took a path nobody had taken are mutated further."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import backups
from backups.errors import BackupError
from tests.fuzz.readers import Reader

WATCHED = str(Path(backups.__file__).parent)
LONGEST = 64 * 1024
SLOW_SECONDS = 20.0
CORPUS = 2000

Edge = tuple[CodeType, int, int]


class Fuzzer:
    """One reader, fed for a while. ``broken`` has what did anything but refuse or read."""

    def __init__(self, reader: Reader, seed: int) -> None:
        self.reader = reader
        self.chance = random.Random(seed)
        self.corpus: list[bytes] = []
        self.edges: set[Edge] = set()
        self.outcomes: Counter[str] = Counter()
        self.broken: dict[str, bytes] = {}
        self._watched: dict[CodeType, bool] = {}

    def run(self, seconds: float, inputs: int = sys.maxsize) -> None:
        ends = time.process_time() + seconds  # whatever else the machine does
        for data in self.reader.seeds:
            self.feed(data)
        self.corpus = list(self.reader.seeds)
        while time.process_time() < ends and self.outcomes.total() < inputs:
            data = self.mutated(self.chance.choice(self.corpus))
            if self.feed(data) and len(self.corpus) < CORPUS:
                self.corpus.append(data)

    def feed(self, data: bytes) -> bool:
        """Read one input; return whether it took a new path."""
        edges: set[Edge] = set()
        begun = time.process_time()  # other processes may be busy
        sys.settrace(self._tracer(edges))
        try:
            self.reader.read(data)
            outcome = "read"
        except BackupError as error:
            outcome = f"exit {error.exit_code}"
        except Exception as error:  # noqa: BLE001  anything else is what this looks for
            outcome = f"BROKEN {type(error).__name__}: {error}"[:200]
        finally:
            sys.settrace(None)
        if outcome == "read" and self.reader.exact and data not in self.reader.seeds:
            outcome = "BROKEN nobody noticed"
        if (taken := time.process_time() - begun) > SLOW_SECONDS:
            outcome = f"BROKEN took {taken:.0f} s"
        self.outcomes[outcome] += 1
        if outcome.startswith("BROKEN"):
            self.broken.setdefault(outcome, data)
        is_new = not edges <= self.edges
        self.edges |= edges
        return is_new

    def mutated(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(1 << self.chance.randrange(5)):
            self._mutate(changed)
        return bytes(changed[:LONGEST])

    def _mutate(self, data: bytearray) -> None:
        chance = self.chance
        at = chance.randrange(len(data) + 1)
        length = 1 << chance.randrange(10)
        kind = chance.randrange(9)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = chance.choice(b'\0\xff\x7f\n"[]{},:<>&0129-.')
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = chance.randbytes(chance.randint(1, 16))
        elif kind == 4:
            data[at:at] = data[at : at + length] * chance.choice([1, 1, 2, 50])
        elif kind == 5:
            other = chance.choice(self.corpus)
            start = chance.randrange(len(other) + 1)
            data[at : at + chance.choice([0, length])] = other[start : start + length]
        elif kind == 6 and self.reader.words:
            data[at : at + chance.choice([0, 0, length])] = chance.choice(self.reader.words)
        elif kind == 7:
            size = chance.choice([2, 4, 8])
            number = chance.choice([0, 1, -1, 2 ** (8 * size - 1) - 1, chance.getrandbits(8)])
            data[at : at + size] = number.to_bytes(size, chance.choice(["big", "little"]), signed=True)
        else:
            del data[at:]

    def _tracer(self, edges: set[Edge]) -> Any:
        watched = self._watched

        def enter(frame: FrameType, event: str, argument: Any) -> Any:
            code = frame.f_code
            if code not in watched:
                watched[code] = code.co_filename.startswith(WATCHED)
            if not watched[code]:
                return None
            last = 0

            def step(frame: FrameType, event: str, argument: Any) -> Any:
                nonlocal last
                if event == "line":
                    edges.add((code, last, frame.f_lineno))
                    last = frame.f_lineno
                return step

            return step

        return enter
