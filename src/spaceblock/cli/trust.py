"""``spaceblock trust`` and ``spaceblock peers``: who may come without a ticket, and who is there on this network."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ..errors import LocalProtocolError
from ..process.interrupts import COMMAND_SIGNALS, run
from . import lan
from .console import open_console
from .output import print_out
from .records import print_record
from .trusted import TrustedPeer, TrustedPeers


def trust(
    peer: str | None, name: str | None, addresses: Sequence[str], *, remove: bool, identity: str | None, json: bool
) -> int:
    """Add, change, remove or list; returns the exit code. Raises ``click.UsageError`` for what cannot be."""
    known = TrustedPeers.of(identity)
    if peer is None:
        for each in known.all:
            _show(each, json)
        if not known.all and not json:
            open_console(json=False, quiet=False).say("nobody is trusted: run spaceblock trust PEER_ID --name NAME")
        return 0
    try:
        if remove:
            changed = known.remove(peer)
        else:
            before = known.find(peer)
            changed = known.add(peer if before is None else before.peer, name, addresses)
    except LocalProtocolError as error:
        raise click.UsageError(error.message) from None
    _show(changed, json)
    return 0


def peers(seconds: float, *, identity: str | None, json: bool) -> int:
    """Print the listeners that announce themselves; returns the exit code."""
    lan.check()
    names = TrustedPeers.of(identity).names
    found = run(lan.browse(seconds), COMMAND_SIGNALS)
    for each in found:
        if json:
            print_record(
                {
                    "type": "peer",
                    "name": each.name,
                    "peer": each.peer,
                    "peer_name": names.get(each.peer),
                    "addresses": list(each.addresses),
                }
            )
        else:
            trusted = f"  trusted as {names[each.peer]}" if each.peer in names else ""
            print_out(f"{each.name}  {each.peer}  {' '.join(each.addresses)}{trusted}")
    if not found and not json:
        open_console(json=False, quiet=False).say(
            "nobody announces itself on this network: run spaceblock receive --announce NAME on another computer"
        )
    return 0


def _show(peer: TrustedPeer, json: bool) -> None:
    if json:
        print_record({"type": "trusted", "peer": peer.peer, "name": peer.name, "addresses": list(peer.addresses)})
    else:
        print_out("  ".join([peer.peer, peer.name or "-", *peer.addresses]))
