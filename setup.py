"""Builds the compiled core; everything else is in pyproject.toml.

Switches in the environment, each "1" to take effect: SPACEBLOCK_NO_EXTENSION leaves the core out, and its pure twin
serves; SPACEBLOCK_DEBUG builds without optimisation; SPACEBLOCK_TRACE traces lines for coverage; SPACEBLOCK_SANITIZE
checks addresses and undefined behaviour.
"""

import os
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

HELP = """
The compiled core could not be built; it needs a C compiler and Python's headers. Install them (Debian and Ubuntu:
apt-get install gcc python3-dev; Fedora: dnf install gcc python3-devel; macOS: xcode-select --install; Windows: the
Visual Studio Build Tools), or set SPACEBLOCK_NO_EXTENSION=1 to install the slow pure-Python core instead.
"""


def switch(name: str) -> bool:
    return os.environ.get(f"SPACEBLOCK_{name}") == "1"


class BuildCore(build_ext):
    def run(self) -> None:
        try:
            super().run()
        except Exception:
            print(HELP, file=sys.stderr)
            raise


def extensions() -> list[Extension]:
    if switch("NO_EXTENSION"):
        return []
    from Cython.Build import cythonize

    compile_args: list[str] = []
    link_args: list[str] = []
    macros: list[tuple[str, str | None]] = []
    directives: dict[str, object] = {}
    if sys.platform != "win32":
        compile_args += ["-O0", "-g"] if switch("DEBUG") else ["-O3"]
    if switch("TRACE"):
        macros += [("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")]
        directives["linetrace"] = True
    if switch("SANITIZE"):
        checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-g"]
        compile_args += checks
        link_args += checks
    core = Extension(
        "spaceblock._fastblock",
        ["src/_fastblock.pyx"],
        define_macros=macros,
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )
    # Coverage looks for the C file beside its source.
    return cythonize([core], compiler_directives=directives, build_dir=None if switch("TRACE") else "build/cython")


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildCore})
