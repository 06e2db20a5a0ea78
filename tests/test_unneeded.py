"""What aioquic imports and Spaceblock never uses comes when it is asked for, and not before."""

from __future__ import annotations

import subprocess
import sys

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
