"""What aioquic imports and Spaceblock never uses comes when it is asked for, and not before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

WEIGHTS = "'certifi', 'service_identity', 'OpenSSL'"


def run(script: str) -> str:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()


def test_the_transport_starts_without_the_webs_rules_for_certificates() -> None:
    script = f"import sys, spaceblock.quic.endpoint; print([name for name in ({WEIGHTS}) if name in sys.modules])"
    assert run(script) == "[]"


def test_stand_ins_have_what_the_modules_have() -> None:
    script = (
        "from spaceblock.quic.handshake.engine import tls\n"
        "import OpenSSL.crypto, certifi, service_identity\n"
        "same = tls.crypto.X509Store is OpenSSL.crypto.X509Store, tls.certifi.where() == certifi.where()\n"
        "print(*same, tls.service_identity.cryptography is service_identity.cryptography)"
    )
    assert run(script) == "True True True"


def test_modules_that_are_there_stay() -> None:
    script = (
        "import OpenSSL\nfrom spaceblock.quic.handshake.engine import tls\n"
        "print(tls.crypto is OpenSSL.crypto, tls.certifi.__spec__ is not None)"
    )
    assert run(script) == "True True"


def test_nothing_is_put_off_while_another_thread_could_see_it() -> None:
    script = (
        "import sys, threading\nend = threading.Event()\nthreading.Thread(target=end.wait).start()\n"
        f"import spaceblock.quic.handshake\nend.set()\nprint(all(name in sys.modules for name in ({WEIGHTS})))"
    )
    assert run(script) == "True"


def test_a_command_sends_without_tls_for_streams(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"anything")
    script = (
        "import os, sys\nos._exit = lambda code: None\nfrom spaceblock.__main__ import main\n"
        f"sys.argv = ['spaceblock', 'send', '--to', 'nonsense', {str(tmp_path / 'file')!r}]\n"
        "assert main() == 2\nprint([name for name in ('ssl', 'asyncio.sslproto', 'bz2') if name in sys.modules])\n"
        "import asyncio, ssl\nprint(asyncio.base_events.ssl.SSLContext is ssl.SSLContext, end=' ')\n"
        "print(asyncio.base_events.sslproto.SSLProtocol is __import__('asyncio.sslproto').sslproto.SSLProtocol)"
    )
    assert run(script).splitlines() == ["[]", "True True"]


THINGS = """
import re
from dataclasses import dataclass, field

PATTERN = re.compile(r"(a+)b", re.IGNORECASE)

@dataclass
class Base:
    number: int
    names: list = field(default_factory=list)

@dataclass
class Derived(Base):
    more: int = 7

@dataclass(frozen=True)
class Frozen:
    number: int

@dataclass
class Own:
    number: int
    def __init__(self):
        self.number = 3
"""


def late(tmp_path: Path, script: str, package: str = "late") -> str:
    """What ``script`` prints, which has the names of :data:`THINGS`, imported in :func:`uncompiled`."""
    (tmp_path / "late").mkdir()
    (tmp_path / "late" / "__init__.py").touch()
    (tmp_path / "late" / "things.py").write_text(THINGS)
    return run(
        f"import sys, re, dataclasses\nsys.path.insert(0, {str(tmp_path)!r})\n"
        "from spaceblock.process.unneeded import uncompiled\n"
        "compile_now, decorate_now = re.compile, dataclasses.dataclass\n"
        f"with uncompiled({package!r}):\n    from late.things import *\n"
        f"assert (re.compile, dataclasses.dataclass) == (compile_now, decorate_now)\n{script}"
    )


@pytest.mark.parametrize("package", ["late", "late.things", "late.thing"])
def test_what_is_compiled_late_is_as_if_compiled_at_once(tmp_path: Path, package: str) -> None:
    script = (
        "print(Derived(1, ['x']), Derived(1) == Derived(1, [], 7), Derived(1) == Derived(2), Base.__hash__)\n"
        "print(PATTERN.fullmatch('AAb').group(1), PATTERN.pattern, Own().number, Own() == Own())\n"
        "print([each.name for each in dataclasses.fields(Derived)], dataclasses.replace(Base(1), number=2))\n"
        "print(Frozen(1), hash(Frozen(1)) == hash(Frozen(1)), dataclasses.is_dataclass(Base), Base.__match_args__)"
    )
    assert late(tmp_path, script, package).splitlines() == [
        "Derived(number=1, names=['x'], more=7) True False None",
        "AA (a+)b 3 True",
        "['number', 'names', 'more'] Base(number=2, names=[])",
        "Frozen(number=1) True True ('number', 'names')",
    ]


@pytest.mark.parametrize("question", ["dataclasses.fields(Derived)[0].name", "Derived.__match_args__[0]"])
def test_a_class_that_was_never_used_answers_for_its_fields(tmp_path: Path, question: str) -> None:
    assert late(tmp_path, f"print({question})") == "number"


def test_no_thread_sees_half_a_class(tmp_path: Path) -> None:
    """They all begin at once with a class that nobody has used, a thousand times."""
    script = (
        "import threading\nfrom importlib import reload\nfrom late import things\nsys.setswitchinterval(1e-6)\n"
        "for _ in range(1_000):\n"
        "    with uncompiled('late'):\n        reload(things)\n"
        "    start, made = threading.Barrier(3), []\n"
        "    def make():\n        start.wait()\n        made.append(things.Derived(1, ['x']))\n"
        "    threads = [threading.Thread(target=make) for _ in range(3)]\n"
        "    for thread in threads:\n        thread.start()\n"
        "    for thread in threads:\n        thread.join()\n"
        "    assert made == [things.Derived(1, ['x'], 7)] * 3\n"
        "print('well')"
    )
    assert late(tmp_path, script) == "well"


def test_nothing_is_compiled_late_for_others(tmp_path: Path) -> None:
    assert late(tmp_path, "print(type(PATTERN) is re.Pattern)", "other") == "True"
    assert run("import email.utils; print(email.utils.parseaddr('a@b'))") == "('', 'a@b')"


def test_nothing_is_compiled_late_while_another_thread_could_see_it() -> None:
    script = (
        "import re, threading\nfrom spaceblock.process.unneeded import uncompiled\nend = threading.Event()\n"
        "threading.Thread(target=end.wait).start()\nbefore = re.compile\n"
        "with uncompiled('re'):\n    print(re.compile is before)\nend.set()"
    )
    assert run(script) == "True"


def test_a_function_called_late_is_the_modules_own() -> None:
    script = (
        "import sys, spaceblock.trust.identity\nprint('email.utils' in sys.modules)\n"
        "from cryptography.x509 import general_name\nprint(general_name.parseaddr('x <a@b>'))"
    )
    assert run(script).splitlines() == ["False", "('x', 'a@b')"]


def test_who_waits_for_others_catches_up(tmp_path: Path) -> None:
    script = (
        "from spaceblock.process.unneeded import catch_up\nprint('__eq__' in vars(Base))\ncatch_up()\n"
        "print(all('__eq__' in vars(each) for each in (Base, Derived, Frozen)), Frozen(1) == Frozen(1))"
    )
    assert late(tmp_path, script).splitlines() == ["False", "True True"]
