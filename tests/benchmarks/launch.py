"""Start the processes of one pipeline, wait for them, and print how long it took and what each needed.

A program of its own, and a small one: Linux counts the memory that a process had before ``exec`` as its own, so that
whatever is started by a large process seems large. Its first argument is JSON: ``stages``, a list of argument lists,
and the paths ``stdin`` and ``stdout``, either null. Prints JSON: ``seconds``, ``peak`` in bytes, ``codes``.
"""

import json
import os
import subprocess
import sys
import time
from typing import Any


def main() -> None:
    order = json.loads(sys.argv[1])
    source: Any = open(order["stdin"] or os.devnull, "rb")  # noqa: PTH123, SIM115 - pathlib alone takes megabytes
    target = open(order["stdout"] or os.devnull, "wb")  # noqa: PTH123, SIM115
    begun = time.monotonic()
    processes = []
    for position, arguments in enumerate(order["stages"]):
        is_last = position == len(order["stages"]) - 1
        process = subprocess.Popen(arguments, stdin=source, stdout=target if is_last else subprocess.PIPE)
        source.close()  # the process before must get a broken pipe if the next one dies
        source = process.stdout
        processes.append(process)
    codes, peak = [], 0
    for process in processes:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        codes.append(process.returncode)
        peak = max(peak, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
    json.dump({"seconds": time.monotonic() - begun, "peak": peak, "codes": codes}, sys.stdout)


if __name__ == "__main__":
    main()
