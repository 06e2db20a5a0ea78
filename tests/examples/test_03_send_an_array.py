"""Send an array straight into another one: no file, no name, and no copy of the whole on either side."""

from __future__ import annotations

import numpy as np

import spaceblock


async def test_send_an_array_into_an_array() -> None:
    weights = np.random.default_rng(1).standard_normal((500, 200))
    target = np.empty_like(weights)

    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        sending = peer.send(weights)
        offer = await anext(aiter(listener))
        assert offer.items[0].size == target.nbytes
        await offer.accept(into=[target])
        await sending

    assert np.array_equal(target, weights)


async def test_several_arrays_are_one_transfer_with_an_item_each() -> None:
    layers = {"encoder": np.arange(1000.0), "decoder": np.arange(500, dtype=np.int16)}
    targets = {name: np.empty_like(layer) for name, layer in layers.items()}

    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        sending = peer.send(*(spaceblock.Item(layer, name=name) for name, layer in layers.items()))
        offer = await anext(aiter(listener))
        await offer.accept(into=[targets[item.name or ""] for item in offer.items])
        await sending

    assert all(np.array_equal(targets[name], layer) for name, layer in layers.items())
