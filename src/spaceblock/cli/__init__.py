"""The command line: ``spaceblock receive``, ``send``, ``bench`` and ``id``.

1. click reads the words and nothing else happens inside of it: a command returns what is to be run.
2. What a command needs is imported when it runs, so that help and completion stay quick.
3. Standard output carries tickets, JSON, the peer ID and what was measured; everything else for people goes to
   standard error.
4. Every end has an exit code: that of the error's class, 2 for wrong usage, 128 + the signal's number.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

import click

from .. import __version__
from ..errors import SpaceblockError

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Job = Callable[[], int]

_EPILOG = (
    "Exit codes: 0 verified and complete, 1 other failure, 2 usage, 3 refused, 4 unreachable, lost or stalled, "
    "5 integrity, 6 storage, 7 name, 130 interrupted."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; ``arguments`` are those of the process unless given."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    json = "--json" in words
    signal.signal(signal.SIGTERM, _terminate)
    try:
        job = spaceblock.main(words, prog_name="spaceblock", standalone_mode=False)
        return job() if callable(job) else int(job or 0)
    except click.UsageError as error:
        return _fail(error.format_message(), "usage", 2, json, hint=_hint(words))
    except SpaceblockError as error:
        return _fail(error.message, error.code, error.exit_code, json)
    except BrokenPipeError:
        # Nobody reads standard output any more, and the interpreter would complain of it once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _fail("standard output was closed before the end: keep its reader running", "output", 1, False)
    except (KeyboardInterrupt, click.Abort) as error:
        return _fail("interrupted", "interrupted", 128 + getattr(error, "signal", signal.SIGINT), json)
    except Exception as error:
        text = f"failed unexpectedly: {error!r}; report this with what led to it (SPACEBLOCK_DEBUG=1 shows where)"
        return _fail(text, "internal", 1, json)


def _terminate(number: int, frame: object) -> NoReturn:
    from ..interrupts import Interrupted

    raise Interrupted(number)


def _fail(message: str, code: str, exit_code: int, json: bool, hint: str = "") -> int:
    """Say why the command ends; called while the error is handled."""
    from .console import print_error, print_json

    if json:
        print_json({"type": "error", "code": code, "message": message})
    print_error(message)
    if hint:
        print(hint, file=sys.stderr)
    return exit_code


def _hint(words: Sequence[str]) -> str:
    command = f" {words[0]}" if words and words[0] in spaceblock.commands else ""
    return f"Try 'spaceblock{command} --help'."


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
                help="Where to listen without a ticket; any address and port if not given.",
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
                metavar="SECONDS",
                help="Give up connecting after so long; 10 if not given.",
            ),
            click.option(
                "--identity",
                type=click.Path(),
                metavar="PATH",
                help="Another key file, or folder with one, than your own.",
            ),
            click.option("--json", is_flag=True, help="Print one JSON object a line on standard output."),
            click.option("-q", "--quiet", is_flag=True, help="Print no progress and no talk."),
        ]
    ):
        command = option(command)
    return command


_fix_names = click.option(
    "--fix-names", is_flag=True, help="Take what is proposed for every name that cannot be used, unasked."
)


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
    help='The folder to receive into, which must exist; the current one if not given. "-" is standard output.',
)
@click.option("-y", "--yes", is_flag=True, help="Accept every offer without asking.")
@click.option("--once", is_flag=True, help="Stop after one offer.")
@click.option(
    "--on-conflict",
    type=click.Choice(["rename", "skip", "overwrite", "error"]),
    help="What to do with a name that is taken; rename if not given.",
)
@click.option("--rename", "conflict", flag_value="rename", help="The same as --on-conflict rename.")
@click.option("--skip", "conflict", flag_value="skip", help="The same as --on-conflict skip.")
@click.option("--overwrite", "conflict", flag_value="overwrite", help="The same as --on-conflict overwrite.")
@_fix_names
@_endpoint_options
def receive(
    folder: str, yes: bool, once: bool, on_conflict: Any, conflict: Any, fix_names: bool, **choices: Any
) -> _Job:
    """Receive what others send.

    Without TICKET, print one for the sender and receive until interrupted. With TICKET, connect to a listening sender;
    "-" asks for it. A ticket can also come from --ticket-file, or from SPACEBLOCK_TICKET in the environment.

    What is skipped is compared with what is there, without sending it. Without --yes, another name is asked for on the
    terminal where one cannot be used here and the sender does not find another.
    """
    if on_conflict and conflict and on_conflict != conflict:
        raise click.UsageError(f"--on-conflict {on_conflict} and --{conflict} were given: choose one of them")

    def job() -> int:
        from .choices import Choices
        from .receive import receive

        on_taken: Any = on_conflict or conflict or "rename"
        return receive(Choices(**choices), folder, yes=yes, once=once, on_conflict=on_taken, fix_names=fix_names)

    return job


@spaceblock.command(epilog=_EPILOG)
@click.option("--to", "ticket", metavar="TICKET", help='The ticket that the receiver printed; "-" asks for it.')
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--name", metavar="NAME", help="What to call standard input; it has no name if not given.")
@click.option(
    "--links",
    type=click.Choice(["skip", "copy"]),
    default="skip",
    help="What to do with symbolic links in folders; skip if not given.",
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
@click.option("--json", is_flag=True, help="Print one JSON object a line on standard output.")
def bench(size: str, datagram: int | None, engine: Any, json: bool) -> _Job:
    """Measure how fast this computer sends to itself.

    Two processes move SIZE bytes over loopback, first from memory to memory, then from file to file in a temporary
    folder (in memory where there is room). Both hash what passes, and the receiver's bytes are hashed once more
    afterwards. A line for each tells megabytes a second and the processor time of both sides for each GiB.
    """

    def job() -> int:
        from .bench.command import bench

        return bench(size, datagram, engine, json=json)

    return job


@spaceblock.command("id")
@click.option(
    "--identity", type=click.Path(), metavar="PATH", help="Another key file, or folder with one, than your own."
)
def show_id(identity: str | None) -> _Job:
    """Print this computer's peer ID, by which others can trust it."""

    def job() -> int:
        from ..identity import Identity

        print(Identity.load(identity).peer_id)
        return 0

    return job
