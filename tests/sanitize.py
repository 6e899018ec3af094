"""Run the tests that exercise the native module with AddressSanitizer and UndefinedBehaviorSanitizer in it.

    python tests/sanitize.py [--build DIR] [--compiler g++] [pytest arguments]

The module is built with the sanitizers in a folder of its own, beside a copy of the Python sources, and
nothing of the working tree is touched. Without arguments the tests are those of `TESTS`. The first report
of a sanitizer ends the run with a status other than 0. Needs CMake, nanobind and a compiler with its
sanitizer runtimes; leaks are not looked for, as the interpreter itself keeps memory until it ends.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parent.parent
TESTS = (
    "tests/core/kernels",
    "tests/core/index",
    "tests/core/storage",
    "tests/core/test_record_metadata.py",
    "tests/core/test_id_lookup.py",
    "tests/core/test_filters.py",
    "tests/core/test_searching.py",
    "tests/core/test_delta.py",
    "tests/formats",
    "tests/trust/test_damage.py",
    "tests/fuzz",
    "tests/cli/test_inputs_jsonl.py",
    "tests/cli/test_hostile_input.py",
    "tests/cli/test_npy_header.py",
)
LEFT_OUT = (
    # Compares the stub with the module: the same source, so nothing that a sanitizer could see.
    "tests/core/kernels/test_stub.py",
    # Limits the address space, of which the sanitizer reserves terabytes.
    "tests/cli/test_hostile_input.py::test_an_endless_line_is_refused_in_bounded_memory",
)

_CHECKS = "-fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all -fno-omit-frame-pointer"


def main() -> int:
    """Build, run, and return pytest's status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "sanitized", help="where to build")
    parser.add_argument("--compiler", default="g++", help="with its runtimes (default: g++)")
    parser.add_argument("--build-only", action="store_true", help="run no tests")
    options, chosen = parser.parse_known_args()

    package = options.build.resolve() / "package"
    build(options.build.resolve(), package, options.compiler)
    if options.build_only:
        return 0
    return run(package, options.compiler, chosen)


def build(folder: Path, package: Path, compiler: str) -> None:
    """Compile the module with the sanitizers and put it into a copy of the packages."""
    cmake = shutil.which("cmake")
    if cmake is None:
        raise SystemExit("sanitize: cmake is not there; install it, for example with pip")
    nanobind = subprocess.run(
        [sys.executable, "-m", "nanobind", "--cmake_dir"], check=True, capture_output=True, text=True
    ).stdout.strip()
    tree = folder / "cmake"
    settings = {
        "CMAKE_BUILD_TYPE": "None",
        "CMAKE_CXX_COMPILER": compiler,
        # Not the highest level: frames of inlined functions are what a report is read for.
        "CMAKE_CXX_FLAGS": f"-O1 -g1 {_CHECKS}",
        "SKBUILD_PROJECT_NAME": "iqdb",
        "SKBUILD_PROJECT_VERSION": "0",
        "SKBUILD_DATA_DIR": str(folder / "data"),
        "Python_EXECUTABLE": sys.executable,
        "nanobind_DIR": nanobind,
    }
    ccache = shutil.which("ccache")
    if ccache is not None:
        settings["CMAKE_CXX_COMPILER_LAUNCHER"] = ccache
    defined = [f"-D{name}={value}" for name, value in settings.items()]
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    subprocess.run([cmake, "-S", ROOT, "-B", tree, *generator, *defined], check=True)
    subprocess.run([cmake, "--build", tree, "-j", str(os.cpu_count() or 1)], check=True)
    (module,) = tree.rglob(f"_kernels{sysconfig.get_config_var('EXT_SUFFIX')}")
    if package.exists():
        shutil.rmtree(package)
    for name in ("iqdb_core", "iqdb_cli"):
        shutil.copytree(
            ROOT / name,
            package / name,
            ignore=shutil.ignore_patterns("*.so", "__pycache__", "*.cpp", "*.hpp"),
        )
    shutil.copy2(module, package / "iqdb_core")


def run(package: Path, compiler: str, chosen: list[str]) -> int:
    """Run the tests on the packages in `package`."""
    runtimes = [
        subprocess.run(
            [compiler, f"-print-file-name=lib{name}.so"], check=True, capture_output=True, text=True
        ).stdout.strip()
        # The interpreter loads libstdc++ too late for the interception of exceptions.
        for name in ("asan", "ubsan", "stdc++")
    ]
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(runtimes),
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "PYTHONPATH": str(package),
        "PYTHONSAFEPATH": "1",
        # CPython's own allocator would hide what is read beyond a small object.
        "PYTHONMALLOC": "malloc",
        "IQDB_SANITIZED": "1",
    }
    found = subprocess.run(
        [sys.executable, "-c", "import iqdb_core._kernels as k; print(k.__file__)"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if found.returncode or not found.stdout.startswith(str(package)):
        raise SystemExit(
            f"sanitize: the built module is not the one that is imported\n{found.stdout}{found.stderr}"
        )
    tests = chosen or [*TESTS, *(f"--deselect={test}" for test in LEFT_OUT)]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
