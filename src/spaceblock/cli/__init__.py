"""The command line: ``spaceblock receive``, ``send``, ``peers``, ``trust``, ``id``, ``bench``, ``doctor`` and
``completion``.

1. click reads the words and nothing else happens inside of it: a command returns what is to be run.
2. What a command needs is imported when it runs, so that help and completion stay quick; signals wait meanwhile.
3. Standard output carries tickets, JSON, the peer ID and what was measured; everything else for people goes to
   standard error.
4. Every end has an exit code: that of the error's class, 2 for wrong usage, 128 + the signal's number.
"""

from __future__ import annotations

import gc
import io
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from .. import __version__
from ..errors import SpaceblockError
from ..process.descriptors import silence
from ..process.postponed import Postponed
from ..process.unneeded import STANDARD, put_off, uncompiled
from .output import OutputFailed, fill_gaps, output_failed, print_out
from .scheduling import prefer_long_turns

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Job = Callable[[], int]

_GARBAGE = 200_000
"""New objects after which rings among them are looked for. Those of a large tree live to the end of the command, and
looking through them again and again would take a tenth of its time."""

_COMPLETES = "_SPACEBLOCK_COMPLETE"
"""The environment variable by which a shell asks for the words that could follow."""

_EPILOG = (
    "Exit codes: 0 verified and complete, 1 other failure, 2 usage, 3 refused, 4 unreachable, lost or stalled, "
    "5 integrity, 6 storage, 7 name, 130 interrupted."
)


_TLS = ("ssl", "asyncio.sslproto")


def main(arguments: Sequence[str] | None = None, *, ready: Callable[[], None] | None = None) -> int:
    """Run one command and return its exit code; ``arguments`` are those of the process unless given.

    ``ready`` is called as soon as an interrupt would end in a sentence and an exit code.
    """
    if arguments is None:
        gc.set_threshold(_GARBAGE)
        prefer_long_turns()
    words = list(sys.argv[1:] if arguments is None else arguments)
    json = "--json" in words
    fill_gaps()
    if arguments is None and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what the locale has no letters for, as on standard error
    signal.signal(signal.SIGTERM, _terminate)
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as it is under nohup
        signal.signal(signal.SIGHUP, _terminate)
    try:
        if ready is not None:
            ready()
        job = _read(words)
        return job() if callable(job) else int(job or 0)
    except click.UsageError as error:
        return _fail(_clause(error.format_message()), "usage", 2, json, hint=_hint(words))
    except SpaceblockError as error:
        return _fail(error.message, error.code, error.exit_code, json)
    except OutputFailed as error:
        return _fail(str(error), "output", 1, False)
    except (KeyboardInterrupt, click.Abort) as error:
        return _fail("interrupted", "interrupted", 128 + getattr(error, "signal", signal.SIGINT), json)
    except Exception as error:
        text = f"failed unexpectedly: {error!r}; report this with what led to it (SPACEBLOCK_DEBUG=1 shows where)"
        return _fail(text, "internal", 1, json)
    finally:
        if arguments is None:
            gc.freeze()  # the interpreter, which ends now, would look through all objects once more


@contextmanager
def _starting() -> Iterator[None]:
    """Inside, what a command needs to transfer anything is imported, and nothing more than that."""
    with Postponed(), put_off("bz2", "lzma"), put_off(*_TLS, CERT_NONE=0, CERT_REQUIRED=2), uncompiled(*STANDARD):
        yield


def _read(words: Sequence[str]) -> Any:
    """What to run for these words, or the exit code where help was asked for; raises :class:`OutputFailed` for that."""
    try:
        return spaceblock.main(words, prog_name="spaceblock", standalone_mode=False)
    except OSError as error:  # nothing else is done meanwhile
        raise output_failed(error) from error


def _terminate(number: int, frame: object) -> NoReturn:
    from ..process.interrupts import Interrupted

    if number == getattr(signal, "SIGHUP", None):
        signal.signal(number, signal.SIG_IGN)  # both the kernel and a shell may tell of it
    raise Interrupted(number)


def _fail(message: str, code: str, exit_code: int, json: bool, hint: str = "") -> int:
    """Say why the command ends; called while the error is handled."""
    if _COMPLETES in os.environ:  # a shell asks, and whatever is said would stand in the line that its user types
        silence(1, 2)
        return exit_code
    with Postponed():
        from .console import print_error
        from .records import error_record, print_record

    try:
        if json:
            print_record(error_record(code, message, exit_code))
        if code == "interrupted" and sys.stderr.isatty():
            print("\r", end="\x1b[K", file=sys.stderr)  # over the ^C that the terminal shows
        print_error(message)
        if hint:
            print(hint, file=sys.stderr)
    except (OSError, OutputFailed):  # nobody can be told, but by the exit code
        silence(1, 2)
    return exit_code


def _clause(message: str) -> str:
    """What click says, as all other messages are written."""
    text = message if message[1:2].isupper() else message[:1].lower() + message[1:]
    return text.removesuffix(".")


def _hint(words: Sequence[str]) -> str:
    command = f" {words[0]}" if words and words[0] in spaceblock.commands else ""
    return f"Try 'spaceblock{command} --help'."


def _finite(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    """Neither "nan" nor "inf" is a time, but both are numbers to click."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter("write a number of seconds, such as 2.5")
    return value


def _endpoint_options(command: _Command) -> _Command:
    """The options of every command that makes a connection; :class:`.choices.Choices` has a field for each."""
    for option in reversed(
        [
            click.option(
                "--ticket-file",
                type=click.Path(exists=True, dir_okay=False),
                help="Read the ticket from this file.",
            ),
            click.option(
                "--listen",
                metavar="HOST:PORT",
                help="Where to listen without a ticket, [HOST]:PORT for IPv6; any address and port if not given.",
            ),
            click.option(
                "--port",
                metavar="PORT[-PORT]",
                help="The UDP port to listen on, or a range to take the first free one of; any if not given.",
            ),
            click.option(
                "--announce",
                metavar="NAME",
                help="While listening, be found on this network under this name; takes the extra spaceblock[lan].",
            ),
            click.option(
                "--advertise",
                metavar="HOST[:PORT]",
                multiple=True,
                help="An address for the ticket, where others see another than this computer does.",
            ),
            click.option("--trust", metavar="PEER_ID", multiple=True, help="Let this peer in without a ticket."),
            click.option(
                "--timeout",
                type=click.FloatRange(min=0, min_open=True),
                callback=_finite,
                metavar="SECONDS",
                help="Give up connecting after so long; 10 if not given.",
            ),
            click.option(
                "--retry",
                type=click.FloatRange(min=0),
                callback=_finite,
                metavar="SECONDS",
                help="Wait or try so long for another connection when one is lost; 30 if not given, 0: do not.",
            ),
            click.option(
                "--identity",
                type=click.Path(),
                metavar="PATH",
                help="Another key file, or folder with one, than your own.",
            ),
            click.option("--json", is_flag=True, help="Print one JSON object a line on standard output."),
            click.option("-q", "--quiet", is_flag=True, help="Print no progress and no talk."),
            click.option("-v", "--verbose", is_flag=True, help="Print more: addresses, engines, every digest."),
        ]
    ):
        command = option(command)
    return command


_fix_names = click.option(
    "--fix-names", is_flag=True, help="Take what is proposed for every name that cannot be used, unasked."
)


_json = click.option("--json", is_flag=True, help="Print one JSON object a line on standard output.")
_identity = click.option(
    "--identity", type=click.Path(), metavar="PATH", help="Another key file, or folder with one, than your own."
)


_ZSH_READY = "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }"
"""Without it zsh knows no completion, unless the user's own file begins it."""


def _complete_folder(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Whatever folders the shell finds."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="dir")]


def _complete_peer(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The names of the trusted peers that begin with what was typed."""
    from .trusted import TrustedPeers

    try:
        names = TrustedPeers.of(context.params.get("identity")).names.values()
    except SpaceblockError:
        return []
    return [name for name in names if name.startswith(incomplete)]


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_EPILOG,
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.pass_context
def spaceblock(context: click.Context) -> int | None:
    """Send files and folders from one computer to another, verified by BLAKE3 on both ends.

    Whoever can be reached listens: without a ticket a command prints one for the other side.
    """
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        return 2
    return None


@spaceblock.command(epilog=_EPILOG)
@click.argument("ticket", required=False)
@click.option(
    "--dir",
    "folder",
    default=".",
    metavar="DIR",
    shell_complete=_complete_folder,
    help="The folder to receive into; the current one if not given. One that is missing is made if you say so on the "
    'terminal. "-" is standard output.',
)
@click.option("-y", "--yes", is_flag=True, help="Accept every offer without asking.")
@click.option("--once", is_flag=True, help="Stop after one offer.")
@click.option(
    "--on-conflict",
    type=click.Choice(["rename", "skip", "overwrite", "error"]),
    help="What to do with a name that is taken; rename if not given.",
)
@click.option("--rename", is_flag=True, help="The same as --on-conflict rename.")
@click.option("--skip", is_flag=True, help="The same as --on-conflict skip.")
@click.option("--overwrite", is_flag=True, help="The same as --on-conflict overwrite.")
@_fix_names
@_endpoint_options
def receive(
    folder: str,
    yes: bool,
    once: bool,
    on_conflict: Any,
    rename: bool,
    skip: bool,
    overwrite: bool,
    fix_names: bool,
    **choices: Any,
) -> _Job:
    """Receive what others send.

    Without TICKET, print one for the sender and receive until interrupted. With TICKET, connect to a listening sender;
    "-" asks for it. A ticket can also come from --ticket-file, or from SPACEBLOCK_TICKET in the environment. The name
    of a trusted peer will do where that peer trusts this computer too.

    What is skipped is compared with what is there, without sending it. Without --yes, another name is asked for on the
    terminal where one cannot be used here and the sender does not find another.
    """
    given = {"--rename": rename, "--skip": skip, "--overwrite": overwrite}
    ways = {word.removeprefix("--"): word for word, was_given in given.items() if was_given}
    if on_conflict and on_conflict not in ways:
        ways = {on_conflict: f"--on-conflict {on_conflict}", **ways}
    if len(ways) > 1:
        raise click.UsageError(f"{' and '.join(ways.values())} were given: choose one of them")

    def job() -> int:
        with _starting():
            from .choices import Choices
            from .receive import receive

        on_taken: Any = next(iter(ways), "rename")
        return receive(Choices(**choices), folder, yes=yes, once=once, on_conflict=on_taken, fix_names=fix_names)

    return job


@spaceblock.command(epilog=_EPILOG)
@click.option(
    "--to",
    "ticket",
    metavar="TICKET|NAME",
    shell_complete=_complete_peer,
    help='The ticket that the receiver printed, or the name of a trusted peer; "-" asks for a ticket.',
)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path())
@click.option("--name", metavar="NAME", help="What to call standard input; it has no name if not given.")
@click.option(
    "--links",
    type=click.Choice(["skip", "copy"]),
    default="skip",
    help="What to do with symbolic links in folders; skip if not given.",
)
@click.option(
    "--limit",
    metavar="RATE",
    help="Send at most so many bytes a second, such as 500K, 10M or 1G (of 1024), or 10MB (of 1000).",
)
@_fix_names
@_endpoint_options
def send(paths: tuple[str, ...], name: str | None, links: Any, fix_names: bool, **choices: Any) -> _Job:
    """Send files and folders; the path "-" is standard input.

    Without a ticket, print one for the receiver and send to the first that comes with it. A ticket can also come from
    --ticket-file, or from SPACEBLOCK_TICKET in the environment.

    Where the receiver cannot use a name, another is asked for on the terminal; without one the receiver is asked.
    """

    def job() -> int:
        with _starting():
            from .choices import Choices
            from .send import send

        return send(Choices(**choices), paths, name=name, links=links, fix_names=fix_names)

    return job


@spaceblock.command(epilog=_EPILOG)
@click.option("--size", default="1GiB", metavar="SIZE", help="Bytes to move, such as 64MiB; 1GiB if not given.")
@click.option("--datagram", type=int, metavar="N", help="Bytes of a datagram, 1200 to 65507; 1452 if not given.")
@click.option(
    "--engine", type=click.Choice(["native", "aioquic"]), help="The QUIC engine; if not given, what send would use."
)
@_json
def bench(size: str, datagram: int | None, engine: Any, json: bool) -> _Job:
    """Measure how fast this computer sends to itself.

    Two processes move SIZE bytes over loopback, first from memory to memory, then from file to file in a temporary
    folder (in memory where there is room). Both hash what passes, and the receiver's bytes are hashed once more
    afterwards. A line for each tells megabytes a second and the processor time of both sides for each GiB.
    """

    def job() -> int:
        with Postponed():
            from .bench.command import bench

        return bench(size, datagram, engine, json=json)

    return job


@spaceblock.command("id", short_help="Print this computer's peer ID.")
@_identity
@_json
def show_id(identity: str | None, json: bool) -> _Job:
    """Print this computer's peer ID, by which others can trust it."""

    def job() -> int:
        with Postponed():
            from ..trust.identity import Identity
            from .records import print_record

        peer_id = Identity.load(identity).peer_id
        if json:
            print_record({"type": "identity", "peer": peer_id})
        else:
            print_out(peer_id)
        return 0

    return job


@spaceblock.command(short_help="Let a peer in without a ticket.")
@click.argument("peer", required=False, metavar="PEER_ID|NAME", shell_complete=_complete_peer)
@click.option("--name", metavar="NAME", help="What to call the peer: a word, for send --to NAME.")
@click.option(
    "--address",
    "addresses",
    metavar="HOST:PORT",
    multiple=True,
    help="Where the peer listens; without one it is looked for on the network.",
)
@click.option("--remove", is_flag=True, help="Trust the peer no longer.")
@_identity
@_json
def trust(
    peer: str | None, name: str | None, addresses: tuple[str, ...], remove: bool, identity: str | None, json: bool
) -> _Job:
    """Let a peer in without a ticket, from now on; without PEER_ID list those that are.

    The other computer tells its peer ID by "spaceblock id". Whoever is trusted may connect to "receive" and offer
    files, and take what "send" offers; what to accept is still asked. To send to a computer by its name, both have to
    trust each other.
    """
    if peer is None and (name or addresses or remove):
        raise click.UsageError("nobody was named: give a PEER_ID or the name of a trusted peer")
    if remove and (name or addresses):
        raise click.UsageError("--remove takes no other options: leave --name and --address away")

    def job() -> int:
        with Postponed():
            from .trust import trust

        return trust(peer, name, addresses, remove=remove, identity=identity, json=json)

    return job


@spaceblock.command(short_help="Print who listens on this network.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    callback=_finite,
    default=3.0,
    metavar="SECONDS",
    help="How long to listen for answers; 3 if not given.",
)
@_identity
@_json
def peers(seconds: float, identity: str | None, json: bool) -> _Job:
    """Print who listens on this network: commands that were given --announce.

    A name there is what its owner says; who it is only the peer ID tells. This takes the extra spaceblock[lan].
    """

    def job() -> int:
        with Postponed():
            from .trust import peers

        return peers(seconds, identity=identity, json=json)

    return job


@spaceblock.command(short_help="Say what makes transfers slow here.")
@_identity
@_json
def doctor(identity: str | None, json: bool) -> _Job:
    """Say what makes transfers slow on this computer, and what to change.

    Looked at are the engine, what seals packets, the processor, the sockets' buffers and offloads, and the key. The
    exit code is 1 where transfers would fail.
    """

    def job() -> int:
        with Postponed():
            from .doctor import doctor

        return doctor(identity, json=json)

    return job


@spaceblock.command(
    short_help="Make a shell complete these words.",
    epilog='For bash put this into ~/.bashrc: eval "$(spaceblock completion bash)"',
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> _Job:
    """Print what makes SHELL complete the words of this command when Tab is pressed."""

    def job() -> int:
        with Postponed():
            from click.shell_completion import get_completion_class

        kind = get_completion_class(shell)
        assert kind is not None
        script = kind(spaceblock, {}, "spaceblock", _COMPLETES).source()
        if shell == "zsh":
            script = script.replace("\n", f"\n{_ZSH_READY}\n", 1)
        print_out(script)
        return 0

    return job
