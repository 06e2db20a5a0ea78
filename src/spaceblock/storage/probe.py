"""What the file system under a target folder accepts as a name, asked of it and not guessed from the system's name.

A folder may lie on another kind of file system than the system's own, and whether case counts is a matter of the single
folder on some. So a few names are tried, in a folder of our own that nobody else looks into, and removed again.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from dataclasses import replace

from ..names import NameRules, local_rules
from ..wire.messages import NameUnit

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_NOT_ALLOWED = frozenset({errno.EINVAL, errno.EILSEQ, errno.ENOENT, errno.EPROTO})
"""How file systems refuse a character, after the folder was written to before."""


def rules_of(folder: int, own: int, path: str) -> NameRules:
    """What can be created below the open folder ``folder``, which has the absolute path ``path``.

    ``own`` is an open, empty folder on the same file system, where names may be tried. What cannot be found out, on a
    full disk for example, is what the system is known for.
    """
    rules = replace(local_rules(), letters=_letters())
    longest = _limit(folder, "PC_NAME_MAX") or rules.name_limit
    whole = _limit(folder, "PC_PATH_MAX")
    if whole:
        # The limit is that of a whole path with its NUL, as other programs will use it, and names come behind a slash.
        rules = replace(rules, path_limit=max(whole - len(os.fsencode(path)) - 2, longest))
    rules = replace(rules, name_limit=longest, name_unit=_unit(own, longest, rules.name_unit))
    if _create(own, "prob\u00e9.") is None:
        # Upper case and decomposed forms of a name that was just made, and the name without its last dot.
        caseless = _exists(own, "PROB\u00c9.") or _exists(own, "probe\u0301.")
        drops_dots = _exists(own, "prob\u00e9")
        _remove(own, "prob\u00e9.")
        rules = replace(rules, caseless=caseless, windows=drops_dots or rules.follows_windows)
    failure = _create(own, "a:b")
    if failure in _NOT_ALLOWED:
        return replace(rules, windows=True)
    if failure is None:
        _remove(own, "a:b")
    return rules


def _letters() -> str | None:
    """The encoding of names, where the locale chose one that has not all characters."""
    encoding = sys.getfilesystemencoding()
    return None if encoding.startswith("utf") else encoding


def _limit(folder: int, name: str) -> int:
    """A limit of the file system, 0 where there is none or it is not told."""
    try:
        return max(os.fpathconf(folder, name), 0)
    except (AttributeError, OSError, ValueError):
        return 0


def _unit(own: int, longest: int, default: NameUnit) -> NameUnit:
    """What the limit counts, told by names of as many characters of two bytes, or of two UTF-16 units."""
    failure = _create_and_remove(own, "\u00e9" * longest)
    if failure is not None:
        return NameUnit.BYTES if failure == errno.ENAMETOOLONG else default
    return NameUnit.UTF16 if _create_and_remove(own, "\U0001f600" * longest) is not None else NameUnit.CODE_POINTS


def _create_and_remove(own: int, name: str) -> int | None:
    failure = _create(own, name)
    if failure is None:
        _remove(own, name)
    return failure


def _create(own: int, name: str) -> int | None:
    """Create an empty file; returns the errno if that fails."""
    try:
        os.close(os.open(name, _NEW_FILE, 0o600, dir_fd=own))
    except OSError as error:
        return error.errno or errno.EIO
    except ValueError:
        return errno.EILSEQ  # this program's own locale cannot write the name
    return None


def _exists(own: int, name: str) -> bool:
    try:
        os.lstat(name, dir_fd=own)
    except (OSError, ValueError):
        return False
    return True


def _remove(own: int, name: str) -> None:
    with suppress(OSError):
        os.unlink(name, dir_fd=own)
