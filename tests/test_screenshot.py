"""Pictures of the documentation: every page is among them, none is too large."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts import screenshot

ROOT = Path(__file__).resolve().parent.parent


def test_every_page_of_the_app_is_photographed() -> None:
    shown = re.findall(r'st\.Page\("views/(\w+)\.py"', (ROOT / "app/main.py").read_text())
    assert len(shown) > 3
    assert set(screenshot.pages()) == set(shown)
    assert screenshot.pages()[0] == shown[0] == screenshot.FIRST


def test_a_large_picture_gets_a_palette_and_keeps_its_colours(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    flat = np.repeat(np.repeat(rng.integers(0, 256, (24, 30, 3), dtype=np.uint8), 20, 0), 20, 1)
    Image.fromarray(flat).save(tmp_path / "a.png", compress_level=0)
    before = (tmp_path / "a.png").stat().st_size
    screenshot.slim(tmp_path / "a.png", 60_000)
    assert (tmp_path / "a.png").stat().st_size <= 60_000 < before
    after = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"), dtype=float)
    assert np.abs(after - flat).mean() < 12


def test_a_small_picture_is_left_as_it_is(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), "#0072B2").save(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    screenshot.slim(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == before


def test_a_picture_that_stays_too_large_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="smaller --size"):
        screenshot.slim(tmp_path / "a.png", 20_000)
