"""Drives Autobahn's cases against an echo server and judges the outcome.

usage: judge.py HOST:PORT [CASE ...]

Without cases: all but compression (12.*, 13.*), which is not negotiated. A case counts as passed only if its verdict is
OK, or INFORMATIONAL where RFC 6455 leaves the matter open; what Autobahn calls NON-STRICT counts as failed.
The last line is `N passed, N failed`; the exit code is 0 only if at least one case ran and none failed.
"""

import asyncio
import os
import sys

from kosoku import FailureError, run_fuzzingclient

EXCLUDED = ["12.*", "13.*"]
DEADLINE_S = 600
GOOD = {"OK", "INFORMATIONAL"}


async def run(address: str, cases: list[str]) -> list:
    include, exclude = (cases, None) if cases else (None, EXCLUDED)
    try:
        return await asyncio.wait_for(run_fuzzingclient(address, include, exclude, concurrency=4), DEADLINE_S)
    except FailureError as failure:
        return failure.results


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    results = asyncio.run(run(sys.argv[1], sys.argv[2:]))
    failed = [r for r in results if r.behavior.value not in GOOD or r.behavior_close.value not in GOOD]
    for result in failed:
        print(f"case {result.case_id}: {result.behavior.value}, close {result.behavior_close.value}")
        print(f"  {result.result} {result.result_close}")
        print(f"  expected {result.expected}, received {result.received}")
    print(f"{len(results) - len(failed)} passed, {len(failed)} failed")
    return 0 if results and not failed else 1


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Leaves without taking the interpreter down: kosoku 0.1.0 still has native threads then, and about one run in
    # three aborts there, with its verdict long printed. An exception above ends the usual way, with a non-zero code.
    os._exit(code)
