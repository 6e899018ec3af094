"""The entry point of `iqdb` and of `python -m iqdb_cli`."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from typing import NoReturn


def main() -> int:
    """Run the command that `sys.argv` holds and return the exit status."""
    # Starting allocates much and frees nothing, so collecting garbage meanwhile is wasted.
    gc.disable()
    # Our kernels do all arithmetic. NumPy's library for matrices need not start threads for it.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        from iqdb_cli.exit_codes import guarded

        return guarded(_run)
    except KeyboardInterrupt:
        return 130


def _run() -> int:
    from iqdb_cli.app import run

    gc.freeze()
    gc.enable()
    return run(sys.argv[1:])


def run_and_leave() -> NoReturn:
    """Run the command and end the process with its exit status: what `iqdb` is.

    Taking the interpreter to pieces takes as long as opening a database and searching it. What others
    wanted to be called at the end is called; the rest goes with the process.
    """
    status = main()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):  # closed, or full: Python knows what to say of it
        sys.exit(status)
    atexit._run_exitfuncs()  # noqa: SLF001 - what Python itself would call now
    os._exit(status)


if __name__ == "__main__":
    run_and_leave()
