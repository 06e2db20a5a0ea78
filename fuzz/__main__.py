"""The command line: ``python -m fuzz run | replay | corpus | seeds | atheris | list``."""

from __future__ import annotations

import argparse
import logging
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import CORPUS, load, names
from .driver import FOUND, read_current, save

GRACE = 120
"""Seconds beyond its time after which a process is ended."""


def main() -> int:
    """Parse the command line and do what it says; the exit status is 1 when something was found."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Fuzz Spaceblock's decoders.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="fuzz some targets, or all")
    run.add_argument("targets", nargs="*", metavar="TARGET")
    run.add_argument("--seconds", type=float, default=60, help="for all targets together (default: 60)")
    run.add_argument("--runs", type=int, default=0, help="inputs for each target, in place of a time")
    run.add_argument("--seed", type=int, default=0, help="another number gives other inputs (default: 0)")
    run.add_argument("--jobs", type=int, default=1, help="targets at a time (default: 1)")
    run.add_argument("--out", type=Path, default=Path("build/fuzz"), help="where findings go (default: build/fuzz)")
    run.add_argument("--keep", action="store_true", help="keep what reached something new, and begin with it next time")
    run.set_defaults(act=_run)

    replay = commands.add_parser("replay", help="try inputs from files, once each")
    replay.add_argument("target", metavar="TARGET")
    replay.add_argument("files", nargs="*", type=Path, metavar="FILE", help="default: the target's corpus")
    replay.set_defaults(act=_replay)

    corpus = commands.add_parser("corpus", help="try all committed inputs of some targets, or all, in this process")
    corpus.add_argument("targets", nargs="*", metavar="TARGET")
    corpus.set_defaults(act=_corpus)

    seeds = commands.add_parser("seeds", help="write the corpus anew; inputs that were added by hand stay")
    seeds.set_defaults(act=_seeds)

    atheris = commands.add_parser("atheris", help="fuzz one target with Atheris, which has to be installed")
    atheris.add_argument("target", metavar="TARGET")
    atheris.add_argument("options", nargs=argparse.REMAINDER, help="for libFuzzer, such as -max_total_time=600")
    atheris.set_defaults(act=_atheris)

    listing = commands.add_parser("list", help="name the targets")
    listing.set_defaults(act=lambda _: print(*names(), sep="\n") or 0)
    arguments = parser.parse_args()
    result: int = arguments.act(arguments)
    return result


def _run(arguments: argparse.Namespace) -> int:
    chosen = arguments.targets or names()
    arguments.out.mkdir(parents=True, exist_ok=True)
    seconds = arguments.seconds * arguments.jobs / len(chosen)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        fine = list(pool.map(lambda name: _run_one(name, seconds, arguments), chosen))
    return 0 if all(fine) else 1


def _run_one(name: str, seconds: float, arguments: argparse.Namespace) -> bool:
    out: Path = arguments.out
    limits = [f"--seconds={seconds}", f"--runs={arguments.runs}", f"--seed={arguments.seed}", f"--out={out}"]
    command = [sys.executable, "-m", "fuzz.driver", name, *limits, *(["--keep"] if arguments.keep else [])]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, timeout=None if arguments.runs else seconds + GRACE
        )
    except subprocess.TimeoutExpired:
        done = None
    current = out / f"{name}.current"
    if done is not None and done.returncode == 0:
        current.unlink(missing_ok=True)
        return True
    if done is not None and done.returncode == FOUND:
        found = done.stdout.strip()
    else:
        what = "hung" if done is None else f"ended with status {done.returncode}"
        found = str(save(out, f"{name}-", read_current(current))) if current.exists() else ""
        print(f"{name}: the process {what}", file=sys.stderr)
    if found:
        print(f"{name}: FOUND {found}\n  try it again: {sys.executable} -m fuzz replay {name} {found}")
    return False


def _replay(arguments: argparse.Namespace) -> int:
    target = load(arguments.target)
    for path in arguments.files or target.corpus():
        print(f"{path}: {target.fuzz(path.read_bytes())}", flush=True)
    return 0


def _corpus(arguments: argparse.Namespace) -> int:
    logging.disable()
    for name in arguments.targets or names():
        target = load(name)
        for path in target.corpus():
            target.fuzz(path.read_bytes())
    return 0


def _seeds(_arguments: argparse.Namespace) -> int:
    for name in names():
        folder = CORPUS / name
        for old in folder.glob("seed-*"):
            old.unlink()
        folder.mkdir(parents=True, exist_ok=True)
        for what, data in load(name).seeds().items():
            (folder / f"seed-{what}").write_bytes(data)
    return 0


def _atheris(arguments: argparse.Namespace) -> int:
    import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]

    with atheris.instrument_imports(include=["spaceblock"]):
        target = load(arguments.target)

    def one_input(data: bytes) -> None:
        target.fuzz(data)

    kept = Path("build/fuzz/atheris") / target.name
    kept.mkdir(parents=True, exist_ok=True)
    for path in target.corpus():
        shutil.copy(path, kept)
    atheris.Setup(["fuzz", f"-max_len={target.size_max}", *arguments.options, str(kept)], one_input)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
