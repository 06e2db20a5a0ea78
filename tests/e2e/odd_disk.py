"""A disk that does what real ones do when they fail, or as those of other systems do: FUSE, as a program of its own.

``python odd_disk.py MOUNTPOINT BACKING SPEC`` mounts a folder on MOUNTPOINT, whose files lie in BACKING, prints a line
and serves it until it is unmounted. SPEC is JSON: ``{"faults": {"write": ["EDQUOT", 65536]}, "system": "windows"}``. A
fault fails every such operation, and of reads and writes those that pass the offset. So what fails is the system call
itself, after a way through the kernel like that of any other disk. As on one with FAT, everything on a disk of Windows
has one mode, which nobody can change.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import stat
import struct
import sys
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_HEADER = struct.Struct("<IIQQIIII")
_ATTR = struct.Struct("<6Q10I")
_BUFFER = 1_048_576 + 4_096
_ROOT = 1


class Disk:
    """The operations, by nodes that stand for paths in the backing folder."""

    def __init__(self, backing: str, faults: dict[str, Any], system: str | None) -> None:
        self._faults = faults
        self._system = system
        self._paths = {_ROOT: backing}
        self._nodes = {backing: _ROOT}
        self._last = _ROOT
        self.operations: dict[int, tuple[str, Callable[[int, memoryview], bytes | None]]] = {
            1: ("lookup", self.lookup),
            2: ("forget", self.nothing),
            3: ("getattr", self.getattr),
            4: ("setattr", self.setattr),
            5: ("readlink", self.readlink),
            6: ("symlink", self.symlink),
            9: ("mkdir", self.mkdir),
            10: ("unlink", self.unlink),
            11: ("rmdir", self.rmdir),
            12: ("rename", lambda node, data: self.rename(node, data[:8], data[8:])),
            13: ("link", self.link),
            14: ("open", self.open),
            15: ("read", self.read),
            16: ("write", self.write),
            17: ("statfs", self.statfs),
            18: ("release", self.release),
            20: ("fsync", self.fsync),
            25: ("flush", self.done),
            26: ("init", self.init),
            27: ("opendir", self.opendir),
            28: ("readdir", self.readdir),
            29: ("releasedir", self.done),
            30: ("fsyncdir", self.done),
            34: ("access", self.done),
            35: ("create", self.create),
            36: ("interrupt", self.nothing),
            42: ("batch_forget", self.nothing),
            45: ("rename2", self.rename2),  # with flags: the kernel has seen to it that nothing is replaced
        }

    def answer(self, opcode: int, node: int, data: memoryview) -> bytes | None:
        """The payload of the reply, None where there is none to give; raises OSError."""
        if opcode not in self.operations:
            raise OSError(errno.ENOSYS, "")
        name, operation = self.operations[opcode]
        fault = self._faults.get(name)
        if fault is not None and (len(fault) == 1 or _end_of(data) > fault[1]):
            raise OSError(getattr(errno, fault[0]), "")
        return operation(node, data)

    def nothing(self, node: int, data: memoryview) -> None:
        return None

    def done(self, node: int, data: memoryview) -> bytes:
        return b""

    def init(self, node: int, data: memoryview) -> bytes:
        ours = struct.pack("<IIIIHHIIHHI", 7, 31, 0, 1 << 5, 0, 0, 131_072, 1, 0, 0, 0)
        return ours.ljust(64, b"\0")

    def lookup(self, node: int, data: memoryview) -> bytes:
        return self._entry(self._child(node, _text(data)))

    def getattr(self, node: int, data: memoryview) -> bytes:
        return bytes(16) + self._attributes(self._paths[node])

    def setattr(self, node: int, data: memoryview) -> bytes:
        valid, _, _, size, _, _, mtime, _, _, mtime_ns, _, mode = struct.unpack_from("<IIQQQQQQIIII", data)
        path = self._paths[node]
        if valid & 1 and self._system == "windows":
            raise PermissionError(errno.EPERM, "everything has one mode")
        if valid & 1:
            os.chmod(path, stat.S_IMODE(mode))
        if valid & 8:
            os.truncate(path, size)
        if valid & 32 and not valid & 256:
            time = mtime * 10**9 + mtime_ns
            os.utime(path, ns=(time, time), follow_symlinks=False)
        return self.getattr(node, data)

    def readlink(self, node: int, data: memoryview) -> bytes:
        return os.fsencode(os.readlink(self._paths[node]))

    def symlink(self, node: int, data: memoryview) -> bytes:
        name, target = bytes(data).split(b"\0")[:2]
        path = self._child(node, os.fsdecode(name), new=True)
        os.symlink(os.fsdecode(target), path)
        return self._entry(path)

    def mkdir(self, node: int, data: memoryview) -> bytes:
        path = self._child(node, _text(data[8:]), new=True)
        os.mkdir(path, int.from_bytes(data[:4], "little"))
        return self._entry(path)

    def unlink(self, node: int, data: memoryview) -> bytes:
        os.unlink(self._child(node, _text(data)))
        return b""

    def rmdir(self, node: int, data: memoryview) -> bytes:
        os.rmdir(self._child(node, _text(data)))
        return b""

    def rename(self, node: int, folder: memoryview, names: memoryview) -> bytes:
        old, new = bytes(names).split(b"\0")[:2]
        before = self._child(node, os.fsdecode(old))
        after = self._child(int.from_bytes(folder, "little"), os.fsdecode(new), new=True)
        os.rename(before, after)
        moved = self._nodes.pop(before, None)
        if moved is not None:
            self._paths[moved] = after
            self._nodes[after] = moved
        return b""

    def rename2(self, node: int, data: memoryview) -> bytes:
        return self.rename(node, data[:8], data[16:])

    def link(self, node: int, data: memoryview) -> bytes:
        path = self._child(node, _text(data[8:]), new=True)
        os.link(self._paths[int.from_bytes(data[:8], "little")], path)
        return self._entry(path)

    def open(self, node: int, data: memoryview) -> bytes:
        (flags,) = struct.unpack_from("<I", data)
        return struct.pack("<QII", os.open(self._paths[node], flags & (os.O_ACCMODE | os.O_TRUNC)), 0, 0)

    def create(self, node: int, data: memoryview) -> bytes:
        flags, mode, umask = struct.unpack_from("<III", data)
        path = self._child(node, _text(data[16:]), new=True)
        fd = os.open(path, flags & (os.O_ACCMODE | os.O_EXCL) | os.O_CREAT, mode & ~umask)
        return self._entry(path) + struct.pack("<QII", fd, 0, 0)

    def read(self, node: int, data: memoryview) -> bytes:
        fd, offset, size = struct.unpack_from("<QQI", data)
        return os.pread(fd, size, offset)

    def write(self, node: int, data: memoryview) -> bytes:
        fd, offset, size = struct.unpack_from("<QQI", data)
        return struct.pack("<II", os.pwrite(fd, data[40 : 40 + size], offset), 0)

    def fsync(self, node: int, data: memoryview) -> bytes:
        return b""

    def release(self, node: int, data: memoryview) -> bytes:
        os.close(struct.unpack_from("<Q", data)[0])
        return b""

    def opendir(self, node: int, data: memoryview) -> bytes:
        return bytes(16)

    def readdir(self, node: int, data: memoryview) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", data)
        out = b""
        for number, name in enumerate(sorted(os.listdir(self._paths[node]))[offset:], offset + 1):
            raw = os.fsencode(name)
            row = struct.pack("<QQII", number + 1, number, len(raw), 0) + raw
            row += bytes(-len(row) % 8)
            if len(out) + len(row) > size:
                break
            out += row
        return out

    def statfs(self, node: int, data: memoryview) -> bytes:
        blocks = 0 if "silent" in self._faults else 1 << 20
        return struct.pack("<5Q4I", blocks, blocks, blocks, 1000, 1000, 4096, 255, 4096, 0).ljust(80, b"\0")

    def _child(self, node: int, name: str, new: bool = False) -> str:
        """The path of ``name`` as this disk's system understands it; of a ``new`` one also whether it is allowed."""
        folder = self._paths[node]
        if self._system == "windows":
            name = name.rstrip(" .") or name
            if new and any(ch in '<>:"\\|?*' or ch < " " for ch in name):
                raise OSError(errno.EINVAL, "")
        elif self._system == "apple":
            name = unicodedata.normalize("NFD", name)
        if self._system is not None:
            if len(name.encode("utf-16-le", "surrogatepass")) > 510:
                raise OSError(errno.ENAMETOOLONG, "")
            folded = _fold(name)
            name = next((found for found in os.listdir(folder) if _fold(found) == folded), name)
            if len(os.fsencode(name)) > 255:  # longer than what is below can hold
                name = f"long-{hash(folded):x}"
        return f"{folder}/{name}"

    def _entry(self, path: str) -> bytes:
        attributes = self._attributes(path)
        if path not in self._nodes:
            self._last += 1
            self._nodes[path], self._paths[self._last] = self._last, path
        return struct.pack("<QQQQII", self._nodes[path], 0, 0, 0, 0, 0) + attributes

    def _attributes(self, path: str) -> bytes:
        status = os.lstat(path)
        times = [status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns]
        whole, parts = [time // 10**9 for time in times], [time % 10**9 for time in times]
        mode = stat.S_IFMT(status.st_mode) | 0o755 if self._system == "windows" else status.st_mode
        kept = (mode, status.st_nlink, status.st_uid, status.st_gid, 0, 4096, 0)
        return _ATTR.pack(status.st_ino, status.st_size, status.st_blocks, *whole, *parts, *kept)


def serve(fd: int, disk: Disk) -> None:
    """Answer the kernel until the disk is unmounted."""
    buffer = bytearray(_BUFFER)
    while True:
        try:
            count = os.readv(fd, [buffer])
        except OSError as error:
            if error.errno == errno.ENOENT:  # a request that was called off
                continue
            return
        _, opcode, unique, node, *_ = _HEADER.unpack_from(buffer)
        try:
            payload, code = disk.answer(opcode, node, memoryview(buffer)[_HEADER.size : count]), 0
        except OSError as error:
            payload, code = b"", error.errno or errno.EIO
        if payload is not None:
            with suppress(FileNotFoundError):
                os.write(fd, struct.pack("<IiQ", 16 + len(payload), -code, unique) + payload)


def mount(at: str) -> int:
    """Mount on ``at``; returns the descriptor to serve."""
    fd = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    if ctypes.CDLL(None, use_errno=True).mount(b"odd", os.fsencode(at), b"fuse", 0, options):
        raise OSError(ctypes.get_errno(), "cannot mount")
    return fd


def _text(data: memoryview) -> str:
    return os.fsdecode(bytes(data).partition(b"\0")[0])


def _fold(name: str) -> str:
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def _end_of(data: memoryview) -> int:
    _, offset, size = struct.unpack_from("<QQI", data)
    return int(offset + size)


if __name__ == "__main__":
    spec = json.loads(sys.argv[3])
    served = mount(sys.argv[1])
    print("mounted", flush=True)
    serve(served, Disk(sys.argv[2], spec.get("faults", {}), spec.get("system")))
