"""The order of the cipher suites follows what the processor can do."""

from __future__ import annotations

from spaceblock.quic import TransportOptions
from spaceblock.quic.suites import AES_FIRST, CHACHA_FIRST, preferred_suites, suites_for


def test_aes_comes_first_where_the_processor_has_it() -> None:
    assert suites_for("processor\t: 0\nflags\t\t: fpu sse2 pclmulqdq aes vaes\n") == AES_FIRST
    assert suites_for("processor : 0\nFeatures : fp asimd aes pmull sha1\n") == AES_FIRST


def test_chacha_comes_first_where_it_has_not() -> None:
    assert suites_for("processor\t: 0\nflags\t\t: fpu sse2 vaes\n") == CHACHA_FIRST
    assert suites_for("processor : 0\nFeatures : fp asimd crc32\n") == CHACHA_FIRST


def test_aes_comes_first_where_nobody_tells() -> None:
    assert suites_for("") == AES_FIRST


def test_a_transport_prefers_what_this_machine_does() -> None:
    assert TransportOptions().cipher_suites == preferred_suites()
    assert set(preferred_suites()) == set(AES_FIRST)
