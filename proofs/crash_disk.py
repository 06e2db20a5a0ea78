"""A disk that loses power: from what a program did to it (see ``recorder.c``), what may be found on it afterwards.

1. What was flushed stays. ``fsync`` of a file: its bytes and times; ``fdatasync``: its bytes and size; ``fsync`` of a
   folder: the names in it; ``syncfs``: everything.
2. Of bytes that were not, each sector is there or not, in any order of time; the file has any of the sizes that it had
   since. Where a sector is missing there are zeros, what was there before, or another file's old bytes.
3. Names that were not flushed are there or not, each change for itself and whole: a name that is replaced is the old
   one or the new, and what moves from one folder to another may be seen in both, and not in neither. On an *ordered*
   disk (as ext4 is) they come in the order in which they were made, and each fsync flushes all of them; on any other
   an fsync of a file says nothing of its name.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from random import Random

_HEAD = struct.Struct("<IBBHHQQqqII")
_SECTORS = (512, 4096)


class Kind(IntEnum):
    """What was done, by the numbers of ``recorder.c``."""

    CREATE = 1
    MKDIR = 2
    SYMLINK = 3
    LINK = 4
    UNLINK = 5
    RENAME = 6
    WRITE = 7
    TRUNCATE = 8
    SYNC = 9
    SYNC_ALL = 10
    CHANGE = 11
    MARK = 12


_MAKING = (Kind.CREATE, Kind.MKDIR, Kind.SYMLINK, Kind.LINK)


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that was done to the file or folder ``place``; ``other`` is the folder that it is, or gets, a name
    in."""

    kind: Kind
    flag: int
    place: int
    other: int
    offset: int
    mtime_ns: int
    mode: int
    name: str
    second: str
    data: bytes


def read_log(path: Path) -> list[Operation]:
    """The operations of a log, in their order."""
    with path.open("rb") as file:
        return list(_operations(file.read()))


def _operations(log: bytes) -> Iterator[Operation]:
    at = 0
    while at + _HEAD.size <= len(log):
        size, kind, flag, name, second, place, other, offset, mtime, mode, data = _HEAD.unpack_from(log, at)
        if not size:
            return
        rest, at = log[at + _HEAD.size : at + size], at + size
        words = os.fsdecode(rest[:name]), os.fsdecode(rest[name : name + second])
        yield Operation(Kind(kind), flag, place, other, offset, mtime, mode, *words, rest[name + second :][:data])


@dataclass(eq=False, slots=True)
class Node:
    """A file, folder or link: what of it is flushed, and what was done to it since."""

    inode: int
    mode: int
    mtime_ns: int
    data: bytes = b""
    pending: list[Operation] = field(default_factory=list)

    def flush(self, *, data_only: bool = False) -> None:
        """Keep what was done to it; of its mode and times only unless ``data_only``."""
        kept = [replace(done, kind=Kind.CHANGE) for done in self.pending[-1:] if data_only]
        out = bytearray(self.data)
        for done in self.pending:
            _write(out, done)
            if not data_only:
                self.mode, self.mtime_ns = done.mode, done.mtime_ns
        self.data, self.pending = bytes(out), kept


@dataclass(frozen=True, slots=True)
class Naming:
    """One change of names: what the places, each a folder and a name in it, become; the first of them comes first."""

    changes: tuple[tuple[tuple[int, str], Node | None], ...]


@dataclass(frozen=True, slots=True)
class Found:
    """What is found under a path; ``data`` is a file's bytes or a link's target."""

    inode: int
    mode: int
    mtime_ns: int
    data: bytes


class CrashDisk:
    """Some folders, from a time when all in them was flushed, and what is done to them since."""

    def __init__(self, roots: Mapping[str, Path], inodes: Mapping[str, int], *, ordered: bool) -> None:
        """``roots`` are copies of the folders, by the names under which they are found again; ``inodes`` those of the
        originals, by path below these names."""
        self._ordered = ordered
        self._roots: dict[str, Node] = {}
        self._nodes: dict[int, Node] = {}
        self._names: dict[tuple[int, str], Node] = {}
        self._pending: list[Naming] = []
        for name, root in roots.items():
            self._roots[name] = self._learn(root, name, inodes)

    def has(self, done: Operation) -> bool:
        """Whether something was done to this disk."""
        return (done.other if done.kind in _MAKING else done.place) in self._nodes

    def apply(self, done: Operation) -> None:
        """Do what was done."""
        kind = done.kind
        if kind is Kind.SYNC_ALL:
            self.flush()
        elif kind is Kind.SYNC:
            self._sync(self._nodes[done.place], data_only=bool(done.flag))
        elif kind in (Kind.WRITE, Kind.TRUNCATE, Kind.CHANGE):
            self._nodes[done.place].pending.append(done)
        elif kind in _MAKING:
            if kind is not Kind.LINK:
                self._nodes[done.place] = Node(done.place, done.mode, done.mtime_ns, done.data)
            self._pending.append(Naming((((done.other, done.name), self._nodes[done.place]),)))
        elif kind is Kind.UNLINK:
            self._pending.append(Naming((((done.other, done.name), None),)))
        elif kind is Kind.RENAME:
            before, after = (done.place, done.name), (done.other, done.second)
            node = self._now()[before]
            self._pending.append(Naming(((after, node), (before, None))))

    def flush(self) -> None:
        """Keep everything."""
        _change(self._names, self._pending)
        self._pending = []
        for node in self._nodes.values():
            node.flush()

    def crash(self, random: Random) -> dict[str, Found]:
        """What may be found after a loss of power now, by path."""
        names = dict(self._names)
        _change(names, self._survivors(random))
        found: dict[str, Found] = {}
        survived: dict[int, Found] = {}
        below: dict[int, list[tuple[str, Node]]] = {}
        for (folder, name), node in names.items():
            below.setdefault(folder, []).append((name, node))
        todo = [*self._roots.items()]
        while todo:
            path, node = todo.pop()
            if node.inode not in survived:
                survived[node.inode] = _survivor(node, random)
            found[path] = survived[node.inode]
            todo += [(f"{path}/{name}", inner) for name, inner in below.get(node.inode, [])]
        return found

    def _learn(self, path: Path, name: str, inodes: Mapping[str, int]) -> Node:
        status = path.lstat()
        node = Node(inodes[name], status.st_mode, status.st_mtime_ns)
        self._nodes[node.inode] = node
        if stat.S_ISLNK(status.st_mode):
            node.data = os.fsencode(path.readlink())
        elif stat.S_ISREG(status.st_mode):
            node.data = path.read_bytes()
        else:
            for inner in path.iterdir():
                self._names[node.inode, inner.name] = self._learn(inner, f"{name}/{inner.name}", inodes)
        return node

    def _now(self) -> dict[tuple[int, str], Node]:
        """The names as the program sees them."""
        names = dict(self._names)
        _change(names, self._pending)
        return names

    def _sync(self, node: Node, *, data_only: bool) -> None:
        if not stat.S_ISDIR(node.mode):
            node.flush(data_only=data_only)
        if self._ordered and not data_only:
            _change(self._names, self._pending)
            self._pending = []
        elif stat.S_ISDIR(node.mode):
            node.flush()
            self._flush_names(node.inode)

    def _flush_names(self, folder: int) -> None:
        """Keep the changes in one folder, and what came before them under the same names."""
        flushed: set[tuple[int, str]] = set()
        kept: list[Naming] = []
        left: list[Naming] = []
        for naming in reversed(self._pending):
            places = [place for place, _ in naming.changes]
            if places[-1][0] == folder or any(place in flushed for place in places):
                kept.append(naming)
                flushed.update(places)
            elif places[0][0] == folder:  # moved into it: the old name may be there for a while
                kept.append(Naming(naming.changes[:1]))
                left.append(Naming(naming.changes[1:]))
                flushed.add(places[0])
            else:
                left.append(naming)
        _change(self._names, kept[::-1])
        self._pending = left[::-1]

    def _survivors(self, random: Random) -> Iterator[Naming]:
        """The changes of names that are on the disk although nobody flushed them."""
        if self._ordered:
            count = random.choice((0, len(self._pending), random.randint(0, len(self._pending))))
            yield from self._pending[:count]
            return
        share = random.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        for naming in self._pending:
            if random.random() < share:
                is_half = len(naming.changes) > 1 and random.random() < 0.2
                yield Naming(naming.changes[:1]) if is_half else naming


def put(found: Mapping[str, Found], folder: Path) -> dict[int, int]:
    """Make what was found, below ``folder``; returns the inodes that it has there, by those that it had."""
    inodes: dict[int, int] = {}
    made: dict[int, Path] = {}
    for name, thing in found.items():
        path = folder / name
        if stat.S_ISDIR(thing.mode):
            path.mkdir()
        elif thing.inode in made:
            os.link(made[thing.inode], path)
        elif stat.S_ISLNK(thing.mode):
            path.symlink_to(os.fsdecode(thing.data))
        else:
            path.write_bytes(thing.data)
        made.setdefault(thing.inode, path)
        inodes[thing.inode] = path.lstat().st_ino
    for name, thing in reversed([*found.items()]):
        if not stat.S_ISLNK(thing.mode):
            os.chmod(folder / name, stat.S_IMODE(thing.mode))
            os.utime(folder / name, ns=(thing.mtime_ns, thing.mtime_ns))
    return inodes


def _change(names: dict[tuple[int, str], Node], namings: Sequence[Naming] | Iterator[Naming]) -> None:
    for naming in namings:
        for place, node in naming.changes:
            if node is None:
                names.pop(place, None)
            else:
                names[place] = node


def _write(out: bytearray, done: Operation) -> None:
    if done.kind is Kind.WRITE:
        out.extend(bytes(max(done.offset - len(out), 0)))
        out[done.offset : done.offset + len(done.data)] = done.data
    elif done.kind is Kind.TRUNCATE:
        del out[done.offset :]
        out.extend(bytes(done.offset - len(out)))


def _survivor(node: Node, random: Random) -> Found:
    """What is left of a file, some of which may not be flushed."""
    mode, mtime_ns, data = node.mode, node.mtime_ns, node.data
    changes = [done for done in node.pending if done.kind is not Kind.CHANGE or random.random() < 0.5]
    if changes:
        last = random.choice(changes)
        mode, mtime_ns = last.mode, last.mtime_ns
    changes = [done for done in node.pending if done.kind is not Kind.CHANGE]
    if changes:
        data = random.choice((_nothing, _all, _torn, _some, _some))(node, changes, random)
    return Found(node.inode, mode, mtime_ns, data)


def _nothing(node: Node, changes: Sequence[Operation], random: Random) -> bytes:
    return node.data


def _all(node: Node, changes: Sequence[Operation], random: Random) -> bytes:
    out = bytearray(node.data)
    for done in changes:
        _write(out, done)
    return bytes(out)


def _torn(node: Node, changes: Sequence[Operation], random: Random) -> bytes:
    """All up to somewhere in the middle of one write."""
    last = random.randrange(len(changes))
    out = bytearray(_all(node, changes[:last], random))
    done = changes[last]
    if done.kind is Kind.WRITE:
        for offset, piece in _sectors(done, random.choice(_SECTORS)):
            if random.random() < 0.1:
                break
            out.extend(bytes(max(offset - len(out), 0)))
            out[offset : offset + len(piece)] = piece
    return bytes(out)


def _some(node: Node, changes: Sequence[Operation], random: Random) -> bytes:
    """Any sectors of any writes, in a file of any size that it had."""
    sizes = [len(node.data)]
    for done in changes:
        is_write = done.kind is Kind.WRITE
        sizes.append(max(sizes[-1], done.offset + len(done.data)) if is_write else done.offset)
    size, sector, share = random.choice(sizes), random.choice(_SECTORS), random.random()
    missing = b"\0" if random.random() < 0.8 else b"another file's"
    out = bytearray((missing * (max(sizes) // len(missing) + 1))[: max(sizes)])
    out[: len(node.data)] = node.data
    for done in changes:
        if done.kind is Kind.WRITE:
            for offset, piece in _sectors(done, sector):
                if random.random() < share:
                    out[offset : offset + len(piece)] = piece
    return bytes(out[:size])


def _sectors(done: Operation, size: int) -> Iterator[tuple[int, bytes]]:
    """The bytes of a write, cut where the disk's sectors end."""
    at, stop = done.offset, done.offset + len(done.data)
    while at < stop:
        end = min(stop, (at // size + 1) * size)
        yield at, done.data[at - done.offset : end - done.offset]
        at = end
