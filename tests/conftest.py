"""What every test may ask for: the real spectra beside the checkout, and random numbers that are the same each time."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from core.training.stars import RealStars

ROOT = Path(__file__).resolve().parent.parent
MAIN = sys.modules["__main__"]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real spectra that no repository may hold: ../shared, or what TRUELINE_SHARED names."""
    folder = Path(os.environ.get("TRUELINE_SHARED", ROOT.parent / "shared"))
    if not (folder / "lamost").is_dir():
        pytest.skip(f"needs real spectra in {folder}/lamost, which is not here (TRUELINE_SHARED names another place)")
    return folder


@pytest.fixture(autouse=True)
def page_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Pages under test answer by themselves, with a cache folder of their own, whatever the machine has."""
    monkeypatch.setenv("TRUELINE_WORKER", "0")
    monkeypatch.setenv("TRUELINE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def own_main(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streamlit's AppTest leaves the page as `__main__`, and a spawned child would start by running that page."""
    monkeypatch.setitem(sys.modules, "__main__", MAIN)


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator of its own for each test, always from the same seed."""
    return np.random.default_rng(20260)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samplers give their draws whatever they are, for tests of form and of how far they go (else: test_away.py)."""
    monkeypatch.setattr("core.models.posterior._Flat.checked", False)


@pytest.fixture(scope="module")
def real() -> RealStars:
    """Real stars of a small mixture, for what is asked of training."""
    from test_mixture import small_mixture  # here: the other tests need not wait for it

    from core.models.mixture import Mixture
    from core.models.precondition import Precondition
    from core.training.stars import RealStars

    one = small_mixture()
    mixture = Mixture(one.log_weight, one.mean, one.factors, one.residual, ["physics", "real", "real"], 0.3)
    return RealStars(mixture, Precondition(mixture))
