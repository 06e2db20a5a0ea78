"""What the examples start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines import Engines


@pytest.fixture(autouse=True)
def each_combination_of_engines(engines: Engines) -> None:
    """Every example runs on either engine, and between one and the other."""


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    """An empty folder to receive into."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    return folder
