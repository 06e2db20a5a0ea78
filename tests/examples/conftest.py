"""What the examples start from."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    """An empty folder to receive into."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    return folder
