"""Builds the compiled modules; everything else is in pyproject.toml.

Switches in the environment, each "1" to take effect: SPACEBLOCK_NO_EXTENSION leaves the core out, and its pure twin
serves; SPACEBLOCK_DEBUG builds without optimisation; SPACEBLOCK_TRACE counts lines for coverage; SPACEBLOCK_SANITIZE
checks addresses and undefined behaviour.
"""

import os
import platform
import shlex
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

HELP = """
The compiled core could not be built; it needs a C compiler and Python's headers. Install them (Debian and Ubuntu:
apt-get install gcc python3-dev; Fedora: dnf install gcc python3-devel; macOS: xcode-select --install; Windows: the
Visual Studio Build Tools), or set SPACEBLOCK_NO_EXTENSION=1 to install the slow pure-Python core instead.
"""
NO_LIBCRYPTO = """
The native QUIC engine is left out, because libcrypto's headers are missing; QUIC runs on aioquic. To have it, install
them (Debian and Ubuntu: apt-get install libssl-dev; Fedora: dnf install openssl-devel) and build again.
"""
CORE = ["_fastblock", "_fastdeframer", "_fastlists", *(["_fastfiles"] if sys.platform != "win32" else [])]
NATIVE = [
    "budget",
    "congestion",
    "credit",
    "ecn",
    "engine",
    "lock",
    "mtu",
    "phases",
    "protection",
    "pump",
    "ranges",
    "recovery",
    "sending",
    "streams",
    "udp",
]


def switch(name: str) -> bool:
    return os.environ.get(f"SPACEBLOCK_{name}") == "1"


def has_header(name: str) -> bool:
    """Whether the compiler will find it: among the system's, or where CFLAGS or CPPFLAGS send it."""
    flags = shlex.split(f"{os.environ.get('CFLAGS', '')} {os.environ.get('CPPFLAGS', '')}")
    roots = [flag[2:] for flag in flags if flag.startswith("-I")]
    roots += ["/usr/include", "/usr/local/include", *map(str, Path("/usr/include").glob("*-linux-*"))]
    return any((Path(root) / name).exists() for root in roots)


def native_module(name: str, macros: list[tuple[str, str | None]], options: dict[str, list[str]]) -> Extension:
    libraries: list[str] = []
    if name == "protection":
        libraries.append("crypto")
        if platform.machine() == "x86_64" and has_header("intel-ipsec-mb.h"):
            libraries.append("IPSec_MB")
            macros = [*macros, ("SPACEBLOCK_IPSEC_MB", "1")]
    source = f"src/spaceblock/quic/native/{name}.pyx"
    return Extension(f"spaceblock.quic.native.{name}", [source], define_macros=macros, libraries=libraries, **options)


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

    options: dict[str, list[str]] = {"extra_compile_args": [], "extra_link_args": []}
    macros: list[tuple[str, str | None]] = []
    if sys.platform != "win32":
        options["extra_compile_args"] += ["-O0", "-g"] if switch("DEBUG") or switch("TRACE") else ["-O3"]
    if switch("TRACE"):
        options["extra_compile_args"] += ["--coverage", "-fprofile-update=atomic"]
        options["extra_link_args"] += ["--coverage"]
    if switch("SANITIZE"):
        checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-g"]
        options["extra_compile_args"] += checks
        options["extra_link_args"] += checks
    modules = [Extension(f"spaceblock.{name}", [f"src/{name}.pyx"], define_macros=macros, **options) for name in CORE]
    if sys.platform == "linux":
        if has_header("openssl/evp.h"):
            modules += [native_module(name, macros, options) for name in NATIVE]
        else:
            print(NO_LIBCRYPTO, file=sys.stderr)
    return cythonize(modules, include_path=["src"], build_dir="build/cython")


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildCore})
