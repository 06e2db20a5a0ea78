"""Spaceblock against a bare aioquic stream: CPU seconds of both processes together, and throughput.

``python bench/bench_endtoend.py`` runs two real processes on loopback for each transfer, the kinds in turn, and quotes
the median of the ratios within each round, so that what disturbs the machine for a while disturbs both alike. Under
pytest the same transfers, smaller and with both sides in one process, are rows of ``make bench``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, TypeVar

import pytest

import bare_aioquic
from processes import print_table, run_script, size_of
from spaceblock import Identity, Options, Peer, connect, listen
from spaceblock.cli.bench.measure import MIB, content
from spaceblock.cli.bench.pair import Pair, check, move, scratch_folder, warm_pages, write_source

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

_T = TypeVar("_T")

BASELINES = {"bare": "bare aioquic", "batched": "bare aioquic, reading in batches"}
KINDS = {**BASELINES, "buffer": "spaceblock, buffer to buffer", "file": "spaceblock, file to file"}


def run_kind(kind: str, size: int, folder: Path) -> Pair:
    """One transfer of ``size`` bytes between two processes."""
    if kind in BASELINES:
        words = ["--size", str(size), "--batch", "64" if kind == "batched" else "0"]
        return run_script(bare_aioquic.SCRIPT, ["receive", *words], ["send", *words])
    pair = move("memory" if kind == "buffer" else "file", size, folder)
    check(pair)
    return pair


def measure(kinds: list[str], size: int, rounds: int, folder: Path) -> dict[str, list[Pair]]:
    """Run all kinds in turn, ``rounds`` times."""
    write_source(folder, size)
    results: dict[str, list[Pair]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind in kinds:
            warm_pages(folder, size)
            results[kind].append(run_kind(kind, size, folder))
    return results


def ratios(results: dict[str, list[Pair]], kind: str, baseline: str) -> list[float]:
    """For each round, the CPU seconds of ``kind`` in those of ``baseline``; sorted."""
    return sorted(ours.cpu / theirs.cpu for ours, theirs in zip(results[kind], results[baseline], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--size", type=size_of, default=64 * MIB, help="bytes of each transfer, such as 64MiB")
    parser.add_argument("--pairs", type=int, default=7, help="rounds, each of all kinds")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), help="what to compare")
    parser.add_argument("--folder", help="where the files go; in memory by default, if there is room for that")
    parser.add_argument("--json", action="store_true", help="print everything that was measured")
    arguments = parser.parse_args()
    with scratch_folder(arguments.folder, 3 * arguments.size) as folder:
        results = measure(arguments.kinds, arguments.size, arguments.pairs, folder)
    baselines = [kind for kind in BASELINES if kind in results]
    if arguments.json:
        print(json.dumps({"size": arguments.size, "ratios": _all_ratios(results, baselines), "runs": results}))
        return
    rows = []
    for kind, pairs in results.items():
        seconds, speeds = (
            [pair.cpu for pair in pairs],
            [arguments.size / pair.sender["seconds"] / 1e6 for pair in pairs],
        )
        row = [KINDS[kind], f"{median(speeds):.1f}", f"{median(seconds):.2f}"]
        row += [f"{median(pair.receiver['cpu'] for pair in pairs):.2f}"]
        row += [f"{median(pair.sender['cpu'] for pair in pairs):.2f}"]
        for baseline in baselines:
            found = ratios(results, kind, baseline)
            row.append(f"{median(found):.3f} ({found[0]:.3f} - {found[-1]:.3f})" if kind != baseline else "1")
        rows.append(row)
    print(
        f"{arguments.size // MIB} MiB, medians of {arguments.pairs} rounds; ratios of CPU seconds (least - greatest)\n"
    )
    print_table(["", "MB/s", "CPU s", "receiver", "sender", *(f"to {kind}" for kind in baselines)], rows)


def _all_ratios(results: dict[str, list[Pair]], baselines: list[str]) -> dict[str, dict[str, list[float]]]:
    return {kind: {baseline: ratios(results, kind, baseline) for baseline in baselines} for kind in results}


# Under pytest: both sides in one process, so that a row's time is about the CPU time of both.

SMALL = 4 * MIB


@pytest.mark.benchmark(group="end to end, 4 MiB, both sides in one process")
@pytest.mark.parametrize("batch", [0, 64], ids=["bare", "batched"])
def test_bare(benchmark: BenchmarkFixture, batch: int) -> None:
    source = content(SMALL)

    async def open_pair(stack: AsyncExitStack) -> tuple[bare_aioquic.Receiver, bare_aioquic.Sender]:
        receiver = bare_aioquic.Receiver(bytearray(SMALL))
        address = await bare_aioquic.open_side(receiver, batch)
        sender = bare_aioquic.Sender()
        await bare_aioquic.open_side(sender, batch)
        sender.connect(address)
        await sender.established
        for side in (sender, receiver):
            stack.callback(side.release)
        return receiver, sender

    with _opened(open_pair) as (run, (_, sender)):
        _five_rounds(benchmark, lambda: run(sender.send(source)))


@pytest.mark.benchmark(group="end to end, 4 MiB, both sides in one process")
def test_buffer(benchmark: BenchmarkFixture) -> None:
    source, target = content(SMALL), bytearray(SMALL)

    async def move(peers: tuple[Peer, Peer]) -> None:
        transfer = peers[0].send(source)
        async for offer in peers[1].offers():
            await asyncio.gather(offer.accept(into=[target]), transfer)
            return

    with _opened(_open_peers) as (run, peers):
        _five_rounds(benchmark, lambda: run(move(peers)))
    assert target == source


@pytest.mark.benchmark(group="end to end, 4 MiB, both sides in one process")
def test_file(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    source, folder = tmp_path / "source", tmp_path / "target"
    source.write_bytes(content(SMALL))
    folder.mkdir()

    async def move(peers: tuple[Peer, Peer]) -> None:
        transfer = peers[0].send(source)
        async for offer in peers[1].offers():
            await asyncio.gather(offer.accept(folder, on_conflict="overwrite"), transfer)
            return

    with _opened(_open_peers) as (run, peers):
        _five_rounds(benchmark, lambda: run(move(peers)))
    assert (folder / "source").read_bytes() == source.read_bytes()


def _five_rounds(benchmark: BenchmarkFixture, function: Callable[[], object]) -> None:
    benchmark.pedantic(function, rounds=5, warmup_rounds=1)  # type: ignore[no-untyped-call]


async def _open_peers(stack: AsyncExitStack) -> tuple[Peer, Peer]:
    listener = await stack.enter_async_context(listen("127.0.0.1", options=Options(identity=Identity.ephemeral())))
    sender = await stack.enter_async_context(connect(listener.ticket, options=Options(identity=Identity.ephemeral())))
    return sender, await anext(listener.peers())


@contextmanager
def _opened(
    opener: Callable[[AsyncExitStack], Coroutine[None, None, _T]],
) -> Iterator[tuple[Callable[[Coroutine[None, None, object]], object], _T]]:
    """An event loop of its own: what runs a coroutine on it, and what ``opener`` opened there."""
    loop = asyncio.new_event_loop()
    stack = AsyncExitStack()
    try:
        opened = loop.run_until_complete(opener(stack))
        yield loop.run_until_complete, opened
        loop.run_until_complete(stack.aclose())
    finally:
        loop.close()


if __name__ == "__main__":
    main()
