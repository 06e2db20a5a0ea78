"""Make a Linux wheel that needs nothing of its system but the C library: ``repair_wheel.py FOLDER WHEEL``.

auditwheel copies the libraries that the wheel links to into it; each of them then gets its licence beside ours. A
library whose licence is not known here is an error, so that none is ever given on without.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

LICENCES = {"libcrypto": "OpenSSL.txt", "libIPSec_MB": "intel-ipsec-mb.txt"}
"""The beginning of a library's file name, and where its licence is in ``tools/licences``."""


def main() -> None:
    folder, wheel = map(Path, sys.argv[1:])
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["auditwheel", "repair", "-w", scratch, str(wheel)], check=True)
        (repaired,) = Path(scratch).glob("*.whl")
        folder.mkdir(parents=True, exist_ok=True)
        with_licences(repaired, folder / repaired.name)
    print(folder / repaired.name)


def with_licences(source: Path, target: Path) -> None:
    """Copy a wheel, and give it the licences of the libraries in it."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        (record_name,) = (name for name in old.namelist() if name.endswith(".dist-info/RECORD"))
        record = old.read(record_name).decode()
        for name in needed(Path(name).name for name in old.namelist() if re.search(r"\.libs/.", name)):
            path = f"{record_name.rpartition('/')[0]}/licenses/bundled/{name}"
            text = (Path(__file__).parent / "licences" / name).read_bytes()
            new.writestr(path, text)
            record += record_line(path, text)
        for entry in old.infolist():
            new.writestr(entry, record if entry.filename == record_name else old.read(entry))


def needed(libraries: Iterable[str]) -> list[str]:
    """The licences that go with ``libraries``, each once."""
    found = set()
    for library in libraries:
        licence = next((text for start, text in LICENCES.items() if library.startswith(start)), None)
        if licence is None:
            sys.exit(f"no licence is known for {library}, which auditwheel bundled: add it to {__file__}")
        found.add(licence)
    return sorted(found)


def record_line(path: str, data: bytes) -> str:
    """A line of RECORD (PEP 376, with the hashes of PEP 427)."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([path, f"sha256={digest}", len(data)])
    return line.getvalue()


if __name__ == "__main__":
    main()
