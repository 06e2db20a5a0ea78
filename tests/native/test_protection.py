"""Packet protection against RFC 9001's appendix A, another implementation, and what an attacker sends."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from spaceblock.errors import EngineUnavailable
from spaceblock.quic.native import keys, protection
from spaceblock.quic.native.keys import Suite
from spaceblock.quic.native.protection import HeaderKey, PacketKey

TAG = 16
TOP = 2**62 - 1
PACKET_MAX = 65_535

# Every suite with every back-end that serves it.
CASES = [
    (suite, backend)
    for suite in Suite
    for backend in protection.backends()
    if (suite, backend) != (Suite.CHACHA20_POLY1305, "ipsec-mb")
]
packet_keys = pytest.mark.parametrize(("suite", "backend"), CASES, ids=[f"{s.name}-{b}" for s, b in CASES])
gcm_backends = pytest.mark.parametrize("backend", protection.backends())
suites = pytest.mark.parametrize("suite", Suite, ids=lambda suite: suite.name)


def material(suite: Suite) -> tuple[bytes, bytes]:
    return bytes(range(1, 1 + suite.key_size)), bytes(range(100, 112))


def reference(suite: Suite, key: bytes, iv: bytes, pn: int, header: bytes, payload: bytes) -> bytes:
    """What section 5.3 says, by the AEADs of another library."""
    nonce = (int.from_bytes(iv, "big") ^ pn).to_bytes(12, "big")
    aead = ChaCha20Poly1305(key) if suite is Suite.CHACHA20_POLY1305 else AESGCM(key)
    return aead.encrypt(nonce, payload, header)


def protect(packet_key: PacketKey, header_key: HeaderKey, pn: int, header: bytes, payload: bytes) -> bytes:
    """A whole packet as it travels: sealed, and its header masked (section 5.4.1)."""
    sealed = packet_key.seal_packet(pn, header, payload)
    pn_size = 1 + (header[0] & 3)
    mask = header_key.mask((header + sealed)[len(header) - pn_size + 4 :][:16])
    masked = bytearray(header)
    masked[0] ^= mask[0] & (0x0F if header[0] & 0x80 else 0x1F)
    for at in range(pn_size):
        masked[len(header) - pn_size + at] ^= mask[1 + at]
    return bytes(masked) + sealed


# ---- RFC 9001, appendix A ----

INITIAL_SALT = bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a")
CONNECTION_ID = bytes.fromhex("8394c8f03e515708")

CLIENT_SECRET = bytes.fromhex("c00cf151ca5be075ed0ebfb5c80323c42d6b7db67881289af4008f1f6c357aea")
SERVER_SECRET = bytes.fromhex("3c199828fd139efd216c155ad844cc81fb82fa8d7446fa7d78be803acdda951b")
CHACHA_SECRET = bytes.fromhex("9ac312a7f877468ebe69422748ad00a15443f18203a07d6060f688f30f21632b")

CLIENT_PAYLOAD = bytes.fromhex(
    """
    060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e86804fe3a47f06a2b69484c00000413011302010000c000000010
    000e00000b6578616d706c652e636f6dff01000100000a00080006001d0017001800100007000504616c706e00050005010000000000330026
    0024001d00209370b2c9caa47fbabaf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b0003020304000d0010000e040305030603
    0203080408050806002d00020101001c00024001003900320408ffffffffffffffff05048000ffff07048000ffff0801100104800075300901
    100f088394c8f03e51570806048000ffff
    """
).ljust(1162, b"\0")

CLIENT_PACKET = bytes.fromhex(
    """
    c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11d242b123dc9bd8bab936b47d92ec356c0bab7df5976d27cd44
    9f63300099f3991c260ec4c60d17b31f8429157bb35a1282a643a8d2262cad67500cadb8e7378c8eb7539ec4d4905fed1bee1fc8aafba17c75
    0e2c7ace01e6005f80fcb7df621230c83711b39343fa028cea7f7fb5ff89eac2308249a02252155e2347b63d58c5457afd84d05dfffdb20392
    844ae812154682e9cf012f9021a6f0be17ddd0c2084dce25ff9b06cde535d0f920a2db1bf362c23e596d11a4f5a6cf3948838a3aec4e15daf8
    500a6ef69ec4e3feb6b1d98e610ac8b7ec3faf6ad760b7bad1db4ba3485e8a94dc250ae3fdb41ed15fb6a8e5eba0fc3dd60bc8e30c5c4287e5
    3805db059ae0648db2f64264ed5e39be2e20d82df566da8dd5998ccabdae053060ae6c7b4378e846d29f37ed7b4ea9ec5d82e7961b7f25a932
    3851f681d582363aa5f89937f5a67258bf63ad6f1a0b1d96dbd4faddfcefc5266ba6611722395c906556be52afe3f565636ad1b17d508b73d8
    743eeb524be22b3dcbc2c7468d54119c7468449a13d8e3b95811a198f3491de3e7fe942b330407abf82a4ed7c1b311663ac69890f415701585
    3d91e923037c227a33cdd5ec281ca3f79c44546b9d90ca00f064c99e3dd97911d39fe9c5d0b23a229a234cb36186c4819e8b9c592772663229
    1d6a418211cc2962e20fe47feb3edf330f2c603a9d48c0fcb5699dbfe5896425c5bac4aee82e57a85aaf4e2513e4f05796b07ba2ee47d80506
    f8d2c25e50fd14de71e6c418559302f939b0e1abd576f279c4b2e0feb85c1f28ff18f58891ffef132eef2fa09346aee33c28eb130ff28f5b76
    6953334113211996d20011a198e3fc433f9f2541010ae17c1bf202580f6047472fb36857fe843b19f5984009ddc324044e847a4f4a0ab34f71
    9595de37252d6235365e9b84392b061085349d73203a4a13e96f5432ec0fd4a1ee65accdd5e3904df54c1da510b0ff20dcc0c77fcb2c0e0eb6
    05cb0504db87632cf3d8b4dae6e705769d1de354270123cb11450efc60ac47683d7b8d0f811365565fd98c4c8eb936bcab8d069fc33bd801b0
    3adea2e1fbc5aa463d08ca19896d2bf59a071b851e6c239052172f296bfb5e72404790a2181014f3b94a4e97d117b438130368cc39dbb2d198
    065ae3986547926cd2162f40a29f0c3c8745c0f50fba3852e566d44575c29d39a03f0cda721984b6f440591f355e12d439ff150aab7613499d
    bd49adabc8676eef023b15b65bfc5ca06948109f23f350db82123535eb8a7433bdabcb909271a6ecbcb58b936a88cd4e8f2e6ff5800175f113
    253d8fa9ca8885c2f552e657dc603f252e1a8e308f76f0be79e2fb8f5d5fbbe2e30ecadd220723c8c0aea8078cdfcb3868263ff8f0940054da
    48781893a7e49ad5aff4af300cd804a6b6279ab3ff3afb64491c85194aab760d58a606654f9f4400e8b38591356fbf6425aca26dc85244259f
    f2b19c41b9f96f3ca9ec1dde434da7d2d392b905ddf3d1f9af93d1af5950bd493f5aa731b4056df31bd267b6b90a079831aaf579be0a390131
    37aac6d404f518cfd46840647e78bfe706ca4cf5e9c5453e9f7cfd2b8b4c8d169a44e55c88d4a9a7f9474241e221af44860018ab0856972e19
    4cd934
    """
)

SERVER_PAYLOAD = bytes.fromhex(
    """
    02000000000600405a020000560303eefce7f7b37ba1d1632e96677825ddf73988cfc79825df566dc5430b9a045a1200130100002e00330024
    001d00209d3c940d89690b84d08a60993c144eca684d1081287c834d5311bcf32bb9da1a002b00020304
    """
)

SERVER_PACKET = bytes.fromhex(
    """
    cf000000010008f067a5502a4262b5004075c0d95a482cd0991cd25b0aac406a5816b6394100f37a1c69797554780bb38cc5a99f5ede4cf73c
    3ec2493a1839b3dbcba3f6ea46c5b7684df3548e7ddeb9c3bf9c73cc3f3bded74b562bfb19fb84022f8ef4cdd93795d77d06edbb7aaf2f5889
    1850abbdca3d20398c276456cbc42158407dd074ee
    """
)


def test_initial_secrets_yield_the_keys_of_appendix_a1() -> None:
    def initial(label: bytes) -> bytes:
        # HKDF-Extract of the connection ID, then HKDF-Expand-Label of 32 bytes.
        info = b"\0\x20" + bytes([6 + len(label)]) + b"tls13 " + label + b"\0"
        return HKDF(hashes.SHA256(), 32, INITIAL_SALT, info).derive(CONNECTION_ID)

    assert initial(b"client in") == CLIENT_SECRET
    assert initial(b"server in") == SERVER_SECRET
    assert keys.derive(Suite.AES_128_GCM, CLIENT_SECRET) == (
        bytes.fromhex("1f369613dd76d5467730efcbe3b1a22d"),
        bytes.fromhex("fa044b2f42a3fd3b46fb255c"),
        bytes.fromhex("9f50449e04a0e810283a1e9933adedd2"),
    )
    assert keys.derive(Suite.AES_128_GCM, SERVER_SECRET) == (
        bytes.fromhex("cf3a5331653c364c88f0f379b6067e37"),
        bytes.fromhex("0ac1493ca1905853b0bba03e"),
        bytes.fromhex("c206b8d9b9f0f37644430b490eeaa314"),
    )


@gcm_backends
@pytest.mark.parametrize(
    ("secret", "pn", "header", "payload", "packet", "sample", "mask"),
    [
        (
            CLIENT_SECRET,
            2,
            "c300000001088394c8f03e5157080000449e00000002",
            CLIENT_PAYLOAD,
            CLIENT_PACKET,
            "d1b1c98dd7689fb8ec11d242b123dc9b",
            "437b9aec36",
        ),
        (
            SERVER_SECRET,
            1,
            "c1000000010008f067a5502a4262b50040750001",
            SERVER_PAYLOAD,
            SERVER_PACKET,
            "2cd0991cd25b0aac406a5816b6394100",
            "2ec0d8356a",
        ),
    ],
    ids=["A.2-client-initial", "A.3-server-initial"],
)
def test_initial_packets_of_appendix_a(
    backend: str, secret: bytes, pn: int, header: str, payload: bytes, packet: bytes, sample: str, mask: str
) -> None:
    key, iv, header_secret = keys.derive(Suite.AES_128_GCM, secret)
    packet_key, header_key = PacketKey(Suite.AES_128_GCM, key, iv, backend), HeaderKey(Suite.AES_128_GCM, header_secret)
    assert header_key.mask(bytes.fromhex(sample)) == bytes.fromhex(mask)
    assert protect(packet_key, header_key, pn, bytes.fromhex(header), payload) == packet
    assert packet_key.open_packet(pn, bytes.fromhex(header), packet[len(header) // 2 :]) == payload


@gcm_backends
def test_retry_integrity_tag_of_appendix_a4(backend: str) -> None:
    # Section 5.8: an AEAD without plaintext, over the original connection ID and the packet.
    key, iv = bytes.fromhex("be0c690b9f66575a1d766b54e368c84e"), bytes.fromhex("461599d35d632bf2239825bb")
    retry = bytes.fromhex("ff000000010008f067a5502a4262b5746f6b656e")
    pseudo = bytes([len(CONNECTION_ID)]) + CONNECTION_ID + retry
    tag = bytes.fromhex("04a265ba2eff4d829058fb3f0f2496ba")
    packet_key = PacketKey(Suite.AES_128_GCM, key, iv, backend)
    assert packet_key.seal_packet(0, pseudo, b"") == tag
    assert packet_key.open_packet(0, pseudo, tag) == b""


def test_chacha20_short_header_packet_of_appendix_a5() -> None:
    suite = Suite.CHACHA20_POLY1305
    key, iv, header_secret = keys.derive(suite, CHACHA_SECRET)
    assert key.hex() == "c6d98ff3441c3fe1b2182094f69caa2ed4b716b65488960a7a984979fb23e1c8"
    assert iv.hex() == "e0459b3474bdd0e44a41c144"
    assert header_secret.hex() == "25a282b9e82f06f21f488917a4fc8f1b73573685608597d0efcb076b0ab7a7a4"
    following = keys.next_secret(suite, CHACHA_SECRET)
    assert following.hex() == "1223504755036d556342ee9361d253421a826c9ecdf3c7148684b36b714881f9"

    packet_key, header_key = PacketKey(suite, key, iv), HeaderKey(suite, header_secret)
    header = bytes.fromhex("4200bff4")
    assert packet_key.seal_packet(654_360_564, header, b"\x01").hex() == "655e5cd55c41f69080575d7999c25a5bfb"
    assert header_key.mask(bytes.fromhex("5e5cd55c41f69080575d7999c25a5bfb")).hex() == "aefefe7d03"
    packet = protect(packet_key, header_key, 654_360_564, header, b"\x01")
    assert packet.hex() == "4cfe4189655e5cd55c41f69080575d7999c25a5bfb"
    assert packet_key.open_packet(654_360_564, header, packet[4:]) == b"\x01"


# ---- Secrets ----


@suites
def test_sizes_and_limits_of_a_suite(suite: Suite) -> None:
    derived = keys.derive(suite, bytes(suite.secret_size))
    assert [len(part) for part in derived] == [suite.key_size, keys.IV_SIZE, suite.key_size]
    assert len(keys.next_secret(suite, bytes(suite.secret_size))) == suite.secret_size
    PacketKey(suite, derived.key, derived.iv)
    HeaderKey(suite, derived.header)
    assert keys.CONFIDENTIALITY_LIMIT[suite] >= 2**23
    assert keys.INTEGRITY_LIMIT[suite] >= 2**36


def test_secrets_of_a_wrong_size_or_suite_are_refused() -> None:
    with pytest.raises(ValueError, match="a secret of 32 bytes, where AES_256_GCM has 48"):
        keys.derive(Suite.AES_256_GCM, bytes(32))
    with pytest.raises(ValueError, match="a secret of 0 bytes"):
        keys.next_secret(Suite.AES_128_GCM, b"")
    with pytest.raises(ValueError, match="4 is not a valid Suite"):
        keys.derive(4, bytes(32))


# ---- Payloads ----


@packet_keys
@given(
    pn=st.integers(0, TOP), header=st.binary(max_size=60), payload=st.binary(max_size=2000), head=st.integers(0, 2000)
)
def test_seals_and_opens_as_the_reference_does(
    suite: Suite, backend: str, pn: int, header: bytes, payload: bytes, head: int
) -> None:
    key, iv = material(suite)
    expected = reference(suite, key, iv, pn, header, payload)
    packet_key = PacketKey(suite, key, iv, backend)
    assert packet_key.seal_packet(pn, header, payload) == expected
    assert packet_key.open_packet(pn, header, expected) == payload
    out = bytearray(len(expected))
    assert packet_key.seal_into(out, 0, pn, header, payload[:head], payload[head:]) == len(expected)
    assert out == expected


@packet_keys
def test_every_size_in_one_part_and_in_two(suite: Suite, backend: str) -> None:
    key, iv = material(suite)
    packet_key = PacketKey(suite, key, iv, backend)
    data, header = bytes(at * 31 & 0xFF for at in range(2000)), b"\x41header"
    for size in range(0, 2001):
        expected = reference(suite, key, iv, size, header, data[:size])
        out = bytearray(size + TAG)
        head = size * 7 % 50
        packet_key.seal_into(out, 0, size, header, data[: min(head, size)], data[min(head, size) : size])
        assert out == expected
        assert packet_key.open_packet(size, header, expected) == data[:size]


@packet_keys
def test_packets_do_not_depend_on_those_before(suite: Suite, backend: str) -> None:
    key, iv = material(suite)
    packet_key = PacketKey(suite, key, iv, backend)
    sealed = {pn: packet_key.seal_packet(pn, b"header", b"payload") for pn in (5, 0, TOP, 2**32, 4)}
    assert packet_key.open_packet(5, b"header", bytes(50)) is None
    for pn, each in reversed(sealed.items()):
        assert each == reference(suite, key, iv, pn, b"header", b"payload")
        assert packet_key.open_packet(pn, b"header", each) == b"payload"


@packet_keys
@pytest.mark.parametrize(("head", "data"), [(0, 0), (0, 1), (1, 0), (30, 1400), (16, 16), (0, 1452)])
def test_nothing_is_written_outside_the_result(suite: Suite, backend: str, head: int, data: int) -> None:
    packet_key = PacketKey(suite, *material(suite), backend)
    size = head + data
    out = bytearray(b"\xa5" * (64 + size + TAG + 64))
    end = packet_key.seal_into(out, 64, 7, b"header", b"h" * head, b"d" * data)
    assert end == 64 + size + TAG
    assert out[:64] == out[end:] == b"\xa5" * 64

    sealed, out = bytes(out[64:end]), bytearray(b"\xa5" * (64 + size + 64))
    assert packet_key.open_into(out, 64, 7, b"header", sealed) == 64 + size
    assert out == b"\xa5" * 64 + b"h" * head + b"d" * data + b"\xa5" * 64

    out = bytearray(b"\xa5" * (64 + size + 64))
    assert packet_key.open_into(out, 64, 8, b"header", sealed) is None
    assert out[:64] == out[64 + size :] == b"\xa5" * 64


@packet_keys
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 100, 1400, 1452])
def test_opens_in_place(suite: Suite, backend: str, size: int) -> None:
    packet_key = PacketKey(suite, *material(suite), backend)
    payload = os.urandom(size)
    packet = bytearray(b"header" + packet_key.seal_packet(9, b"header", payload) + b"next")
    sealed = memoryview(packet)[6 : 6 + size + TAG]
    assert packet_key.open_into(packet, 6, 9, b"header", sealed) == 6 + size
    assert packet[:6] + packet[6 : 6 + size] == b"header" + payload
    assert packet[6 + size + TAG :] == b"next"


@packet_keys
def test_the_largest_packet(suite: Suite, backend: str) -> None:
    packet_key = PacketKey(suite, *material(suite), backend)
    payload = bytes(PACKET_MAX - TAG)
    sealed = packet_key.seal_packet(1, b"h" * 40, payload)
    assert len(sealed) == PACKET_MAX
    assert packet_key.open_packet(1, b"h" * 40, sealed) == payload
    assert packet_key.open_packet(1, b"h" * 40, sealed + b"x") is None
    with pytest.raises(ValueError, match="pass what fits into 65535"):
        packet_key.seal_packet(1, b"", payload + b"x")
    with pytest.raises(ValueError, match="pass what fits into 65535"):
        packet_key.seal_into(bytearray(2 * PACKET_MAX), 0, 1, b"", b"x" * 10, payload[9:])
    with pytest.raises(ValueError, match="pass what fits into 65535"):
        packet_key.seal_packet(1, bytes(PACKET_MAX + 1), b"")


# ---- What an attacker sends ----


@packet_keys
@pytest.mark.parametrize("size", [0, 1, 40])
def test_every_flipped_bit_is_refused(suite: Suite, backend: str, size: int) -> None:
    packet_key = PacketKey(suite, *material(suite), backend)
    header = b"\x41abcdefgh\0\x07"
    sealed = packet_key.seal_packet(7, header, bytes(size))
    for bit in range(8 * len(sealed)):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        assert packet_key.open_packet(7, header, changed) is None
    for bit in range(8 * len(header)):
        other = bytearray(header)
        other[bit // 8] ^= 1 << bit % 8
        assert packet_key.open_packet(7, other, sealed) is None
    for bit in range(62):
        assert packet_key.open_packet(7 ^ 1 << bit, header, sealed) is None
    assert packet_key.open_packet(7, header, sealed) == bytes(size)


@packet_keys
def test_every_cut_is_refused(suite: Suite, backend: str) -> None:
    packet_key = PacketKey(suite, *material(suite), backend)
    sealed = packet_key.seal_packet(7, b"header", b"payload of a packet")
    for size in range(len(sealed)):
        assert packet_key.open_packet(7, b"header", sealed[:size]) is None
        assert packet_key.open_into(bytearray(64), 0, 7, b"header", sealed[:size]) is None
    assert packet_key.open_packet(7, b"header", sealed + b"\0") is None
    assert packet_key.open_packet(7, b"", sealed) is None


@packet_keys
@given(sealed=st.binary(max_size=100), header=st.binary(max_size=30))
def test_noise_is_refused(suite: Suite, backend: str, sealed: bytes, header: bytes) -> None:
    packet_key = PacketKey(suite, *material(suite), backend)
    assert packet_key.open_packet(0, header, sealed) is None


# ---- Header masks ----


def reference_mask(suite: Suite, key: bytes, sample: bytes) -> bytes:
    """Sections 5.4.3 and 5.4.4, by another library."""
    if suite is Suite.CHACHA20_POLY1305:
        return Cipher(algorithms.ChaCha20(key, sample), mode=None).encryptor().update(bytes(16))
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(sample)


@suites
@pytest.mark.parametrize("count", [0, 1, 2, 3, 44, 64, 300])
def test_masks_one_by_one_and_many_at_once(suite: Suite, count: int) -> None:
    key, _ = material(suite)
    header_key = HeaderKey(suite, key)
    samples = [os.urandom(16) for _ in range(count)]
    expected = [reference_mask(suite, key, sample) for sample in samples]
    assert header_key.mask_all(b"".join(samples)) == b"".join(expected)
    assert [header_key.mask(sample) for sample in samples] == [mask[:5] for mask in expected]


@pytest.mark.parametrize("size", [0, 15, 17, 32])
def test_samples_of_a_wrong_size_are_refused(size: int) -> None:
    header_key = HeaderKey(Suite.AES_128_GCM, bytes(16))
    with pytest.raises(ValueError, match=f"a sample of {size} bytes"):
        header_key.mask(bytes(size))
    if size % 16:
        with pytest.raises(ValueError, match=f"samples of {size} bytes"):
            header_key.mask_all(bytes(size))


# ---- Misuse ----


@suites
def test_keys_and_ivs_of_a_wrong_size_are_refused(suite: Suite) -> None:
    key, iv = material(suite)
    for wrong in (b"", key[:-1], key + b"x", bytes(24)):
        with pytest.raises(ValueError, match=f"key has {len(wrong)} bytes; pass {suite.key_size}"):
            PacketKey(suite, wrong, iv)
        with pytest.raises(ValueError, match=f"key has {len(wrong)} bytes; pass {suite.key_size}"):
            HeaderKey(suite, wrong)
    for wrong in (b"", iv[:-1], iv + b"x"):
        with pytest.raises(ValueError, match=f"iv has {len(wrong)} bytes; pass 12"):
            PacketKey(suite, key, wrong)


@pytest.mark.parametrize("suite", [-1, 0, 4])
def test_unknown_suites_are_refused(suite: int) -> None:
    with pytest.raises(ValueError, match=f"no suite {suite}"):
        PacketKey(suite, bytes(16), bytes(12))
    with pytest.raises(ValueError, match=f"no suite {suite}"):
        HeaderKey(suite, bytes(16))


@pytest.mark.parametrize("pn", [-1, TOP + 1, 2**64])
def test_packet_numbers_out_of_range_are_refused(pn: int) -> None:
    packet_key = PacketKey(Suite.AES_128_GCM, bytes(16), bytes(12))
    with pytest.raises(ValueError, match=f"the packet number is {pn}"):
        packet_key.seal_packet(pn, b"", b"")
    with pytest.raises(ValueError, match=f"the packet number is {pn}"):
        packet_key.open_packet(pn, b"", bytes(16))


def test_an_output_without_room_is_refused() -> None:
    packet_key = PacketKey(Suite.AES_128_GCM, bytes(16), bytes(12))
    sealed = packet_key.seal_packet(0, b"", b"12345")
    for pos in (-1, 1, 21, 22, 2**64):
        out = bytearray(21)
        with pytest.raises(ValueError, match="no room for 21 bytes"):
            packet_key.seal_into(out, pos, 0, b"", b"12", b"345")
        assert out == bytes(21)
    for pos in (-1, 17, 2**64):
        with pytest.raises(ValueError, match="no room for 5 bytes"):
            packet_key.open_into(bytearray(21), pos, 0, b"", sealed)


def test_inputs_that_overlap_the_output_are_refused() -> None:
    packet_key = PacketKey(Suite.AES_128_GCM, bytes(16), bytes(12))
    out = bytearray(200)
    inside = memoryview(out)[50:60]
    for at in range(3):
        header, head, data = (inside if at == each else memoryview(b"") for each in range(3))
        for pos in (59, 50, 40, 35):
            with pytest.raises(ValueError, match="overlaps the output"):
                packet_key.seal_into(out, pos, 0, header, head, data)
        assert packet_key.seal_into(out, 60, 0, header, head, data) <= 86
    with pytest.raises(ValueError, match="overlaps the output"):
        packet_key.open_into(out, 1, 0, b"", memoryview(out)[0:50])
    with pytest.raises(ValueError, match="overlaps the output"):
        packet_key.open_into(out, 0, 0, memoryview(out)[20:30], memoryview(out)[0:50])


def test_buffers_are_let_go() -> None:
    packet_key = PacketKey(Suite.AES_128_GCM, bytes(16), bytes(12))
    buffers = [bytearray(100) for _ in range(4)]
    packet_key.seal_into(buffers[0], 0, 0, buffers[1], buffers[2][:9], buffers[3][:9])
    packet_key.open_into(buffers[0], 0, 0, buffers[1], buffers[2])
    for each in buffers:
        each.append(0)


@pytest.mark.parametrize("make", [lambda: PacketKey(1, bytes(16), bytes(12)), lambda: HeaderKey(1, bytes(16))])
def test_keys_are_not_pickled(make: Any) -> None:
    with pytest.raises(TypeError, match="cannot"):
        pickle.dumps(make())


# ---- Back-ends ----


def test_the_backend_of_a_key() -> None:
    assert protection.backend() in protection.backends()
    assert protection.backends()[0] == "evp"
    for suite, backend in CASES:
        assert PacketKey(suite, *material(suite), backend).backend == backend
    assert PacketKey(Suite.AES_256_GCM, *material(Suite.AES_256_GCM)).backend == protection.backend()
    chacha = Suite.CHACHA20_POLY1305
    assert PacketKey(chacha, *material(chacha), protection.backends()[-1]).backend == "evp"
    with pytest.raises(ValueError, match="no back-end 'other'"):
        PacketKey(Suite.AES_128_GCM, bytes(16), bytes(12), "other")
    if "ipsec-mb" not in protection.backends():
        with pytest.raises(EngineUnavailable, match="choose evp"):
            PacketKey(Suite.AES_128_GCM, bytes(16), bytes(12), "ipsec-mb")


def chosen(wish: str) -> str:
    ask = "from spaceblock.quic.native import protection; print(protection.backend())"
    env = {**os.environ, "SPACEBLOCK_AEAD": wish}
    done = subprocess.run([sys.executable, "-c", ask], env=env, capture_output=True, text=True)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_the_environment_chooses_the_backend() -> None:
    assert chosen("evp") == "evp"
    assert chosen("") == protection.backends()[-1]
    if "ipsec-mb" in protection.backends():
        assert chosen("ipsec-mb") == "ipsec-mb"
    else:
        assert "choose evp" in chosen("ipsec-mb")
    assert "SPACEBLOCK_AEAD is 'rot13'" in chosen("rot13")
