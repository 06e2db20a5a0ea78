"""At home in other programs: task groups, arrays without copies, the log, errors in other processes, a quick import."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import multiprocessing
import pickle
import subprocess
import sys
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

import spaceblock
from engines import why_not_native
from spaceblock.storage.sources import BufferSource, hold_buffers
from support import uncounted

MIB = 1024 * 1024
HEAVY = {"aioquic", "asyncio", "blake3", "concurrent.futures", "cryptography", "numpy", "rich", "sqlite3", "ssl"}
"""What takes longer to import than a short command takes to run."""

with_groups = pytest.mark.skipif(sys.version_info < (3, 11), reason="task groups came with Python 3.11")


@with_groups
async def test_transfers_are_awaited_by_a_task_group() -> None:
    targets = [bytearray(100_000) for _ in range(3)]
    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        offers = aiter(listener)

        async def send(number: int) -> spaceblock.Receipt:
            return await peer.send(bytes([number]) * 100_000)

        async def receive() -> None:
            for target in targets:
                await (await anext(offers)).accept(into=[target])

        async with asyncio.TaskGroup() as group:  # type: ignore[attr-defined]
            tasks = [group.create_task(send(number)) for number in range(3)]
            group.create_task(receive())
    assert [task.result().bytes for task in tasks] == [100_000] * 3
    assert {target[0] for target in targets} == {0, 1, 2}


@with_groups
async def test_a_task_group_that_fails_cancels_its_transfers_and_no_others() -> None:
    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        offers = aiter(listener)
        other = peer.send(b"data")
        others_offer = await anext(offers)
        groups = peer.send(bytes(100_000))
        groups_offer = await anext(offers)

        async def fail() -> None:
            raise LookupError("something else in the program")

        async def wait() -> None:
            await groups

        async def both() -> None:
            async with asyncio.TaskGroup() as group:  # type: ignore[attr-defined]
                group.create_task(wait())
                await asyncio.sleep(0)
                group.create_task(fail())

        with pytest.raises(Exception, match="unhandled errors in a TaskGroup") as caught:
            await both()
        errors: list[Exception] = getattr(caught.value, "exceptions", [])
        assert [type(error) for error in errors] == [LookupError]
        with pytest.raises(spaceblock.TransferCancelled):
            await groups
        with pytest.raises(spaceblock.TransferCancelled):
            await groups_offer.accept(into=[bytearray(100_000)])
        assert not other.done
        await asyncio.gather(other, others_offer.accept(into=[bytearray(4)]))


@pytest.mark.parametrize("dtype", [np.float64, np.int16, np.complex64])
def test_an_array_is_sent_from_where_it_lies(dtype: type[np.generic]) -> None:
    array = np.zeros((30, 20), dtype)
    (held,) = hold_buffers([array])
    assert isinstance(held, BufferSource)
    view = np.frombuffer(held.view, np.uint8)
    assert view.ctypes.data == array.ctypes.data
    assert view.nbytes == array.nbytes
    del view
    held.close()


@pytest.mark.skipif(bool(why_not_native()), reason="takes a minute on aioquic, whose every packet is traced")
async def test_from_array_to_array_takes_no_memory_for_another_one() -> None:
    source = np.random.default_rng(7).integers(0, 255, 48 * MIB, np.uint8)
    target = np.zeros_like(source)
    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        tracemalloc.start()
        try:
            sending = peer.send(source)
            offer = await anext(aiter(listener))
            await asyncio.gather(sending, offer.accept(into=[target]))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert np.array_equal(source, target)
    assert peak < source.nbytes / 2, f"{peak / MIB:.1f} MiB were taken meanwhile"


async def test_a_part_of_an_array_is_filled_in_place() -> None:
    whole = np.zeros((10, 1000))
    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        sending = peer.send(np.ones(1000))
        offer = await anext(aiter(listener))
        await asyncio.gather(sending, offer.accept(into=[whole[3]]))
    assert whole.sum(axis=1).tolist() == [0, 0, 0, 1000, 0, 0, 0, 0, 0, 0]


async def test_an_array_that_must_not_change_is_refused_as_a_target() -> None:
    target = np.zeros(4, np.uint8)
    target.flags.writeable = False
    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        sending = peer.send(b"data")
        offer = await anext(aiter(listener))
        with pytest.raises(spaceblock.BufferUnfit):
            await offer.accept(into=[target])
        with pytest.raises(spaceblock.BufferUnfit):
            await sending


def test_the_log_is_one_logger_of_the_librarys_name() -> None:
    """Silent for a program that sets nothing up, but for warnings; below the name nothing else logs."""
    program = """
import logging, spaceblock, spaceblock.api
print(*[name for name in logging.root.manager.loggerDict if name.startswith("spaceblock")])
print(logging.getLogger("spaceblock").handlers)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "spaceblock\n[]\n"


def failing(kind: str) -> None:
    """What a worker process of some program may run into."""
    item = spaceblock.ReceiptItem(0, "a.bin", "a.bin", 4, "0" * 64)
    receipt = spaceblock.Receipt("0" * 32, "peer", (item,), 4, 0.5, {"a:bin": "a.bin"})
    error: spaceblock.SpaceblockError = getattr(spaceblock, kind)("it broke: mend it", errno=28, receipt=receipt)
    raise error from OSError(28, "no space")


@pytest.mark.parametrize("kind", ["NoSpace", "TransferCancelled", "TicketUsed", "Stalled", "RemoteProtocolError"])
def test_an_error_crosses_from_a_worker_process_with_all_that_it_tells(kind: str) -> None:
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        error = pool.submit(failing, kind).exception()
    assert type(error) is getattr(spaceblock, kind)
    assert isinstance(error, spaceblock.SpaceblockError)
    assert (str(error), error.errno) == ("it broke: mend it", 28)
    assert error.receipt is not None
    assert error.receipt.renamed == {"a:bin": "a.bin"}


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_values_are_pickled_too(protocol: int) -> None:
    progress = spaceblock.Progress(spaceblock.Phase.MOVING, 1, 2, 3.0, None, 0, 0, 0, 1, "a")
    for value in (progress, spaceblock.Options(trust=["x"]), spaceblock.Partial(1, 2), spaceblock.Item("a", name="b")):
        assert pickle.loads(pickle.dumps(value, protocol)) == value


def imported_by(program: str) -> set[str]:
    """The heavy modules that a program has imported at its end."""
    script = f"import sys\nsys.argv = ['spaceblock', '--help']\n{program}\nprint('\\n' + ' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=uncounted())
    return HEAVY & set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "program",
    [
        "import spaceblock",
        "import spaceblock; spaceblock.Options(); spaceblock.NoSpace('full: free some')",
        "import spaceblock.cli\ntry: spaceblock.cli.main()\nexcept SystemExit: pass",
    ],
    ids=["import", "values", "help"],
)
def test_starting_imports_nothing_heavy(program: str) -> None:
    assert imported_by(program) == set()


def test_sending_is_what_imports_the_transport() -> None:
    assert {"aioquic", "asyncio", "cryptography"} <= imported_by("import spaceblock; spaceblock.connect")


@pytest.mark.parametrize(
    ("call", "wrapped"),
    [(spaceblock.sync.send, spaceblock.Peer.send), (spaceblock.sync.receive, spaceblock.Offer.accept)],
    ids=["send", "receive"],
)
def test_the_calls_without_a_loop_take_all_that_the_others_take(
    call: Callable[..., object], wrapped: Callable[..., object]
) -> None:
    taken = set(inspect.signature(wrapped).parameters) - {"self"}
    for way_in in (spaceblock.listen, spaceblock.connect):
        taken |= set(inspect.signature(way_in).parameters)
    assert taken <= set(inspect.signature(call).parameters)
