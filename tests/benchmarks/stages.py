"""What a row costs in each stage of a backup, one stage after the other: ``python -m tests.benchmarks.stages``.

Prints JSON: the rows, and the seconds of each stage, for all tables whose cells the database writes. In a real backup
the stages work beside each other, as far as there are processors.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

import django
from django.db import DEFAULT_DB_ALIAS

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_Result = TypeVar("_Result")

DATABASE, FINISH, DIGEST, COMPRESS = "database writes cells", "make lines of them", "digest", "compress"
CHUNK_BYTES = 4 * 1024 * 1024


class Stages:
    def __init__(self) -> None:
        self.rows = 0
        self.seconds = dict.fromkeys((DATABASE, FINISH, DIGEST, COMPRESS), 0.0)

    def time(self, stage: str, work: Callable[[], _Result]) -> _Result:
        begun = time.perf_counter()
        result = work()
        self.seconds[stage] += time.perf_counter() - begun
        return result


def main() -> None:
    from backups import databases
    from backups.records import coverage
    from backups.records.rows import RowReader
    from backups.records.table import Table

    stages = Stages()
    database = databases.of(DEFAULT_DB_ALIAS)
    with database.snapshot():
        for model in coverage.of_database(DEFAULT_DB_ALIAS).models:
            lines = stages.time(DATABASE, lambda: RowReader(Table(model), DEFAULT_DB_ALIAS).format)  # noqa: B023
            if lines.query is None:
                continue
            finish, digest = lines.finisher(is_digested=False), lines.finisher(is_digested=True)
            stages.time(DATABASE, lambda: deque(database.cells(lines.query, None), maxlen=0))  # noqa: B023
            blocks, size = list[bytes](), 0
            for written in database.cells(lines.query, None):
                page = stages.time(FINISH, lambda: finish(written))  # noqa: B023
                if page is None:
                    continue
                stages.time(DIGEST, lambda: digest(written))  # noqa: B023 - finishes once more, which is taken off below
                blocks.append(page.block)
                size += len(blocks[-1])
                stages.rows += written.rows
                if size >= CHUNK_BYTES:
                    stages.time(COMPRESS, lambda: zstd.compress(b"".join(blocks), 3))  # noqa: B023
                    blocks, size = [], 0
            stages.time(COMPRESS, lambda: zstd.compress(b"".join(blocks), 3))  # noqa: B023
    stages.seconds[DIGEST] -= stages.seconds[FINISH]
    json.dump({"rows": stages.rows, "seconds": stages.seconds}, sys.stdout)


if __name__ == "__main__":
    django.setup()
    main()
