"""The page of defences is true: each test that it names exists, and each number beside a constant is that constant."""

from __future__ import annotations

import dataclasses
import importlib
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from spaceblock import limits

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "defences.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(test_\w+)`", PAGE)))
NUMBERS = re.findall(r"(\d+) \(`(\w+)\.(\w+)`\)", PAGE)
OURS = {"limits", "timeouts"}
NOT_OF_PEERS = {
    ("limits", name)
    for name in (
        "DATAGRAM_MIN",
        "DATAGRAM_MAX",
        "SMALL_ITEM",
        "HEARTBEAT",
        "CHECKPOINTS",
        "COMMANDS_KEPT",
        "DATA_STREAMS",
    )
}
"""What this side does by itself, whatever a peer does."""


def test_every_test_that_is_named_exists() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    existing = set(re.findall(r"def (test_\w+)\(", sources))
    assert len(NAMED) > 40
    assert [name for name in NAMED if name not in existing] == []


@pytest.mark.skipif(find_spec("spaceblock.quic.native.engine") is None, reason="there is no native engine here")
@pytest.mark.parametrize(("number", "module", "constant"), [found for found in NUMBERS if found[1] not in OURS])
def test_every_number_of_the_transport_is_its_constant(number: str, module: str, constant: str) -> None:
    loaded = importlib.import_module(f"spaceblock.quic.native.{module}")
    assert int(getattr(loaded, constant)) == int(number)


@pytest.mark.parametrize(("number", "which", "name"), [found for found in NUMBERS if found[1] in OURS])
def test_every_number_of_a_limit_is_its_default(number: str, which: str, name: str) -> None:
    defaults = limits.Timeouts() if which == "timeouts" else limits if name.isupper() else limits.Limits()
    assert getattr(defaults, name) == int(number)


def test_every_limit_of_a_peer_is_on_the_page() -> None:
    named = {(which, name) for _, which, name in NUMBERS}
    constants = {("limits", name) for name in vars(limits) if name.isupper()} - NOT_OF_PEERS
    fields = {("limits", field.name) for field in dataclasses.fields(limits.Limits)} - {("limits", "total_size")}
    times = {("timeouts", field.name) for field in dataclasses.fields(limits.Timeouts)}
    assert (constants | fields | times) - named == set()


def test_every_test_and_proof_of_a_promise_exists() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    files = set(re.findall(r"`(tests/[\w/]+\.py)`", page))
    assert len(files) > 15
    assert [name for name in sorted(files) if not (ROOT / name).is_file()] == []
    proofs = set(re.findall(r"python -m proofs (\w+)", page))
    assert proofs == {"kill", "resume", "soak", "power", "faults"}
    assert [name for name in sorted(proofs) if not (ROOT / "proofs" / f"{name}.py").is_file()] == []
    assert f"{limits.COMMANDS_KEPT} commands (`limits.COMMANDS_KEPT`) are remembered" in page


def test_the_numbers_of_the_security_policy_are_the_limits() -> None:
    policy = " ".join((ROOT / "SECURITY.md").read_text(encoding="utf-8").split())
    assert f"at most {limits.HALF_OPEN_UNPROVED} handshakes at once" in policy
    assert f"of one peer at most {limits.PARTIALS_PEER} such folders" in policy
    assert f"an identity remembers its last {limits.REMEMBERED_MAX} in each direction" in policy
    assert ("hidden folder for seven days" in policy, limits.PARTIALS_KEPT) == (True, 7 * 86_400)


def test_every_line_names_a_test() -> None:
    for line in PAGE.splitlines():
        if line.startswith("| ") and not line.startswith(("| What it tries", "| ---")):
            assert re.search(r"`test_\w+`", line), line
