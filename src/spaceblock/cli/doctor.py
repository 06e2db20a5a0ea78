"""``spaceblock doctor``: what this computer brings to a transfer, and what to change where it could be faster."""

from __future__ import annotations

import os
import platform
import re
import socket
import sys
import textwrap
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from .. import __version__
from ..bars import columns_of, size_text
from ..display import printable
from ..errors import SpaceblockError
from ..options import Options, why_not_native
from ..process.lazily import dataclass
from .output import print_out
from .records import print_record

Status = Literal["good", "slow", "bad"]

_CPU_INFO = "/proc/cpuinfo"
_INDENT = 28
_TEXT_MIN = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: ``good``, ``slow`` where transfers could be faster, ``bad`` where they fail."""

    check: str
    status: Status
    found: str
    advice: str | None = None


def doctor(identity: str | None, *, json: bool) -> int:
    """Look at everything and return the exit code: 1 where something is bad."""
    findings = list(examine(identity))
    for finding in findings:
        if json:
            print_record(
                {
                    "type": "check",
                    "check": finding.check,
                    "status": finding.status,
                    "found": finding.found,
                    "advice": finding.advice,
                }
            )
        else:
            print_out(text_of(finding))
    if not json:
        slow = sum(finding.status != "good" for finding in findings)
        print_out("nothing is to be changed" if not slow else f"{slow} of {len(findings)} could be better: see above")
    return 1 if any(finding.status == "bad" for finding in findings) else 0


def examine(identity: str | None = None) -> Iterator[Finding]:
    """Everything that is looked at, in order."""
    yield Finding("version", "good", f"spaceblock {__version__}, Python {platform.python_version()}, {_system()}")
    yield _engine()
    yield from _cipher()
    yield from _sockets()
    yield _addresses()
    yield _loop()
    yield _discovery()
    yield _key(identity)


def text_of(finding: Finding) -> str:
    """A finding as lines for people, the advice below what was found; a terminal gets none that it would break."""
    is_terminal = sys.stdout.isatty()
    width = max(columns_of(sys.stdout) - 1, _INDENT + _TEXT_MIN) if is_terminal else 100
    line = f"{finding.status:<4}  {finding.check:<{_INDENT - 8}}  {finding.found}"
    indent = " " * _INDENT

    def lines(text: str, first: str) -> list[str]:
        return textwrap.wrap(
            text, width, initial_indent=first, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )

    found = lines(line, "") if is_terminal else [line]
    return "\n".join(found + ([] if finding.advice is None else lines(finding.advice, indent)))


def _system() -> str:
    return f"{platform.system()} {platform.release()} on {platform.machine()}"


def _engine() -> Finding:
    try:
        chosen = Options().chosen_engine()
    except SpaceblockError as error:
        return Finding("engine", "bad", error.message, "unset SPACEBLOCK_ENGINE, or set it to aioquic")
    missing = why_not_native()
    if chosen == "native":
        return Finding("engine", "good", "native")
    if missing is None:
        return Finding(
            "engine", "slow", "aioquic, as SPACEBLOCK_ENGINE says", "unset SPACEBLOCK_ENGINE: native is here"
        )
    advice = "use Linux, Python 3.11 or newer and a build that found libcrypto's headers: it is some 30 times as fast"
    return Finding("engine", "slow", f"aioquic, as the native engine {missing}", advice)


def _cipher() -> Iterator[Finding]:
    if why_not_native() is None:
        from ..quic.native.protection import backends

        direct = "ipsec-mb" in backends()
        wanted = os.environ.get("SPACEBLOCK_AEAD") or ("ipsec-mb" if direct else "evp")
        if direct or platform.machine() not in ("x86_64", "AMD64"):
            yield Finding("packet protection", "good", wanted)
        else:
            advice = "install libipsec-mb (Debian: libipsec-mb-dev) and build again: memory moves 1.4 times as fast"
            yield Finding("packet protection", "slow", f"{wanted}, which is OpenSSL", advice)
    flags = cpu_flags()
    if flags is None:
        yield Finding("processor", "good", "this system does not tell what it can do")
    elif "aes" in flags:
        extra = [flag for flag in ("vaes", "avx512f", "avx2", "pmull") if flag in flags]
        yield Finding("processor", "good", f"has AES instructions{''.join(f', {flag}' for flag in extra)}")
    else:
        advice = "in a virtual machine let it see the host's processor (QEMU: -cpu host); otherwise nothing helps"
        yield Finding("processor", "slow", "has no AES instructions, so ChaCha20 is used", advice)


def _sockets() -> Iterator[Finding]:
    from ..quic.sockets import SOCKET_BUFFER, granted_buffers, offloads

    names = ("receive buffer", "send buffer")
    settings = ("net.core.rmem_max", "net.core.wmem_max")
    for name, setting, granted in zip(names, settings, granted_buffers(), strict=True):
        if granted >= SOCKET_BUFFER:
            yield Finding(name, "good", size_text(granted))
            continue
        advice = f"run as root: sysctl -w {setting}={SOCKET_BUFFER}; to keep it write that to a file in /etc/sysctl.d"
        if sys.platform != "linux":
            advice = f"let the system grant UDP sockets {SOCKET_BUFFER} bytes (macOS: sysctl kern.ipc.maxsockbuf)"
        yield Finding(name, "slow", f"{size_text(granted)} of {size_text(SOCKET_BUFFER)}", advice)
    sends, receives = offloads()
    for name, has, needs in (("sending in trains", sends, "4.18"), ("receiving in trains", receives, "5.0")):
        if has:
            yield Finding(name, "good", "the kernel does it")
        else:
            found = "the kernel takes one datagram at a time"
            yield Finding(name, "slow", found, f"use Linux {needs} or newer, outside of a sandbox that emulates it")


def _addresses() -> Finding:
    if socket.has_dualstack_ipv6():
        return Finding("addresses", "good", "IPv4 and IPv6")
    return Finding("addresses", "good", "IPv4 alone", "switch IPv6 on where peers should reach this computer by it")


def _loop() -> Finding:
    found = _version_of("uvloop")
    text = "asyncio; uvloop is not installed and not needed" if found is None else f"asyncio; uvloop {found} works too"
    return Finding("event loop", "good", text)


def _discovery() -> Finding:
    found = _version_of("zeroconf")
    if found is None:
        advice = "run pip install 'spaceblock[lan]' to find computers on the network by name"
        return Finding("discovery", "good", "zeroconf is not installed", advice)
    return Finding("discovery", "good", f"zeroconf {found}")


def _key(identity: str | None) -> Finding:
    from ..trust.identity import Identity

    try:
        loaded = Identity.load(identity)
    except SpaceblockError as error:
        return Finding("key", "bad", printable(error.message), "mend that, or choose another key with --identity")
    return Finding("key", "good", f"{loaded.peer_id} in {printable(str(loaded.home))}")


def cpu_flags(path: str = _CPU_INFO, read: Callable[[Path], str] = Path.read_text) -> frozenset[str] | None:
    """What the processor can do, in the kernel's words; None where the system does not tell."""
    try:
        text = read(Path(path))
    except OSError:
        return None
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return None if found is None else frozenset(found[1].split())


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
