"""The peers that this computer's user trusts: a text file, one peer a line, beside the key.

A line is a peer ID, then the name that the user gave it (or ``-``), then the addresses where it listens, if they are
known. Whoever is in it may connect without a ticket.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from ..display import printable
from ..errors import LocalProtocolError, StorageError, storage_error
from ..process.lazily import dataclass
from ..trust.contacts import Contact, split_address
from ..trust.identity import Identity, parse_peer_id, peer_id_text, private_folder, sync_folder

FILE = "trusted"
"""The file's name in the identity's folder."""

NAME_MAX = 64
"""Characters of a name."""


@dataclass(frozen=True, slots=True)
class TrustedPeer:
    """One line."""

    peer: str
    name: str | None = None
    addresses: tuple[str, ...] = ()

    def contact(self, addresses: Sequence[str] = ()) -> Contact:
        """Where to connect to: the addresses of the line, or else ``addresses``."""
        return Contact(self.peer, self.addresses or tuple(addresses))


class TrustedPeers:
    """The file of one identity. Raises :class:`StorageError` where it cannot be read or written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._peers = {peer.peer: peer for peer in _read(path)}

    @classmethod
    def of(cls, identity: str | os.PathLike[str] | None) -> TrustedPeers:
        """Those of the identity that is kept at a path, or of the user's own."""
        folder = Identity.load(identity).home
        assert folder is not None
        return cls(folder / FILE)

    @property
    def all(self) -> list[TrustedPeer]:
        """All of them, in the order in which they were added."""
        return list(self._peers.values())

    @property
    def names(self) -> dict[str, str]:
        """From peer IDs to names."""
        return {peer.peer: peer.name for peer in self._peers.values() if peer.name is not None}

    def find(self, word: str) -> TrustedPeer | None:
        """The peer that has this name or peer ID."""
        by_name = [peer for peer in self._peers.values() if peer.name == word]
        return by_name[0] if by_name else self._peers.get(word.strip().lower())

    def add(self, peer_id: str, name: str | None = None, addresses: Sequence[str] = ()) -> TrustedPeer:
        """Trust a peer, or change what is known of it; what is not given stays.

        Raises :class:`LocalProtocolError` for what is no peer ID, name or address, and for a name that another peer
        has.
        """
        key = peer_id_text(parse_peer_id(peer_id))
        before = self._peers.get(key, TrustedPeer(key))
        if name is not None:
            _check_name(name)
            other = self.find(name)
            if other is not None and other.peer != key:
                raise LocalProtocolError(f"another trusted peer is called {name!r}: choose another name")
        for address in addresses:
            split_address(address)
        peer = TrustedPeer(key, name or before.name, tuple(addresses) or before.addresses)
        self._peers[key] = peer
        self._write()
        return peer

    def remove(self, word: str) -> TrustedPeer:
        """Trust a peer no longer; raises :class:`LocalProtocolError` if it is not trusted."""
        peer = self.find(word)
        if peer is None:
            raise LocalProtocolError(f"no trusted peer is called {printable(word)!r}: run spaceblock trust to see all")
        del self._peers[peer.peer]
        self._write()
        return peer

    def _write(self) -> None:
        lines = [" ".join((peer.peer, peer.name or "-", *peer.addresses)) + "\n" for peer in self._peers.values()]
        try:
            folder = private_folder(self._path.parent)
            temporary = folder / f".{FILE}.{secrets.token_hex(8)}"
            try:
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    file.writelines(lines)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, self._path)
            finally:
                temporary.unlink(missing_ok=True)
            sync_folder(folder)
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            raise storage_error(error, f"the trusted peers cannot be kept in {self._path}") from error


def _read(path: Path) -> list[TrustedPeer]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise storage_error(error, f"the trusted peers in {path} cannot be read") from error
    peers = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            peer, name, *addresses = [*words, "-"] if len(words) == 1 else words
            peers.append(TrustedPeer(peer_id_text(parse_peer_id(peer)), None if name == "-" else name, (*addresses,)))
        except LocalProtocolError as error:
            raise StorageError(f"line {number} of {path} names no peer: mend or delete it") from error
    return peers


def _check_name(name: str) -> None:
    plain = name.isprintable() and printable(name) == name and not any(ch.isspace() or ch in "#/" for ch in name)
    if not plain or not 0 < len(name) <= NAME_MAX or name.startswith(("-", "sb2")):
        raise LocalProtocolError(
            f"{printable(name)!r} cannot be a peer's name: choose a word of at most {NAME_MAX} letters"
        )
