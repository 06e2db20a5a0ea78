"""The command line: ``python -m proofs PROOF [OPTIONS]``; see ``docs/reliability.md``."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
import time
from types import ModuleType

import proofs

from .support import Disproved


def main() -> int:
    """Run one proof; the exit status is 1 when it failed."""
    parser = argparse.ArgumentParser(prog="python -m proofs", description="Proofs of what is promised.")
    commands = parser.add_subparsers(metavar="PROOF", required=True)
    for name, module in _proofs().items():
        first = (module.__doc__ or "").partition("\n")[0]
        command = commands.add_parser(
            name, help=first, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.set_defaults(prove=module.prove)
        module.configure(command)
    options = parser.parse_args()
    began = time.monotonic()
    try:
        report = options.prove(options)
    except Disproved as error:
        print(f"DISPROVED: {error}", flush=True)
        return 1
    print(f"{report}\nproved in {time.monotonic() - began:.0f} s", flush=True)
    return 0


def _proofs() -> dict[str, ModuleType]:
    """The modules of this package that prove something, by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(proofs.__path__) if module.name != "__main__")
    modules = {name: importlib.import_module(f"proofs.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "prove")}


if __name__ == "__main__":
    sys.exit(main())
