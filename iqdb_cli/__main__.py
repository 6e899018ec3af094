"""The entry point of `iqdb` and of `python -m iqdb_cli`."""

from __future__ import annotations

import gc
import os
import sys


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
    finally:
        gc.freeze()  # what is left goes with the process: nobody need look through it once more


def _run() -> int:
    from iqdb_cli.app import run

    gc.freeze()
    gc.enable()
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
