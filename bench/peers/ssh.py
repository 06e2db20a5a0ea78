"""scp, and rsync over ssh, to an ssh server of our own on loopback, with AES-128-GCM."""

from __future__ import annotations

import getpass
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .contender import Task
from .tool import Tool, execute, free_ports, needed, running

CIPHER = "aes128-gcm@openssh.com"


class Scp(Tool):
    """The file is pushed, as users of it do."""

    name = "scp"
    programs = ("scp", "sshd", "ssh-keygen")

    @contextmanager
    def serve(self, task: Task, place: Path) -> Iterator[Sequence[str]]:
        with ssh_server(place) as options:
            target = f"{getpass.getuser()}@127.0.0.1:{place / 'received'}"
            yield [needed("scp"), "-q", *options, str(task.folder / "source"), target]

    def found(self, place: Path) -> Path:
        return place / "received"


class Rsync(Tool):
    """The whole file, since there is nothing to compare it with."""

    name = "rsync over ssh"
    programs = ("rsync", "ssh", "sshd", "ssh-keygen")

    @contextmanager
    def serve(self, task: Task, place: Path) -> Iterator[Sequence[str]]:
        with ssh_server(place) as options:
            target = f"{getpass.getuser()}@127.0.0.1:{place / 'received'}"
            shell, remote = " ".join([needed("ssh"), *options]), f"--rsync-path={needed('rsync')}"
            source = str(task.folder / "source")
            yield [needed("rsync"), "--whole-file", "-e", shell, remote, source, target]

    def found(self, place: Path) -> Path:
        return place / "received"


@contextmanager
def ssh_server(place: Path) -> Iterator[list[str]]:
    """A server that this user may log in to with a key; gives the options for ssh."""
    for name in ("host", "user"):
        execute([needed("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(place / name)], place)
    port = free_ports(1)
    settings = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": place / "host",
        "AuthorizedKeysFile": place / "user.pub",
        "PidFile": "none",
        "StrictModes": "no",  # the folder for temporary files is everybody's
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
        "Subsystem": "sftp internal-sftp",
    }
    (place / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    command = [needed("sshd"), "-D", "-e", "-f", str(place / "sshd_config")]
    options = {
        "Port": port,
        "IdentityFile": place / "user",
        "IdentitiesOnly": "yes",
        "StrictHostKeyChecking": "no",
        "UserKnownHostsFile": "/dev/null",
        "LogLevel": "ERROR",
        "Ciphers": CIPHER,
        "Compression": "no",
    }
    with running(command, place / "sshd.log", "Server listening", end=signal.SIGTERM):
        yield ["-F", "none", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
