"""What ships: the cards of the checkpoints, whether each file is the one recorded, licences, how to cite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from core.data import hashes

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINTS = ROOT / "checkpoints"
_WHAT = {  # of files without a card that says it
    "gaussian": "one Gaussian of stars: PCA, Wiener", "labels": "labels that ride along in the mixture",
    "mlp": "perceptrons that read labels off spectra", "noise": "LAMOST's noise maps as a model",
    "reality": "what real stars have and physics lacks", "ridge": "ridge regression that reads labels off spectra",
    "sky": "patterns that sky and air leave, of one plate"}


def _card(path: Path) -> dict[str, Any]:
    """The card beside a file; empty where it has none, or one that cannot be read."""
    try:
        found = json.loads(path.with_suffix(".json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _losses(card: dict[str, Any]) -> str:
    losses = card.get("losses")
    names = ("loss", "mixture", "noisy")  # of the network, and of what it is to beat
    return ", ".join(f"{name} {losses[name]:.3g}" for name in names if name in losses) if losses else ""


@st.cache_resource(show_spinner="Checking the files ...", max_entries=2)
def _models(folder: str, _stamps: tuple[int, ...]) -> pd.DataFrame:
    rows = []
    try:
        listed = hashes.recorded(Path(folder))
    except ValueError:
        listed = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        card, found = _card(path), hashes.digest(path)
        promised = card.get("sha256") or listed.get(path.name)
        state = "no record" if promised is None else "as recorded" if promised == found else "CHANGED"
        rows.append({"file": path.name, "what": str(card.get("what") or _WHAT.get(path.stem, "")),
                     "MB": path.stat().st_size / 1e6, "state": state, "SHA-256": found[:16],
                     "spectra seen": card.get("spectra_seen"), "stars made": card.get("spectra_made"),
                     "seconds": card.get("seconds"), "hardware": str(card.get("hardware") or ""),
                     "losses": _losses(card), "licence": str(card.get("licence") or "MIT")})
    return pd.DataFrame(rows)


def models() -> pd.DataFrame:
    """A row a file of checkpoints/: what it is, its size, whether its SHA-256 is as recorded, how it was trained."""
    files = sorted([*CHECKPOINTS.glob("*.safetensors"), *CHECKPOINTS.glob("*.json")])
    return _models(str(CHECKPOINTS), tuple(file.stat().st_mtime_ns for file in files))


def card(name: str) -> dict[str, Any]:
    """A file's card as it stands beside it."""
    return _card(CHECKPOINTS / name)


def text(name: str) -> str:
    """A text of the repository's root, as CITATION.cff; empty where it is not there."""
    path = ROOT / name
    return path.read_text() if path.is_file() else ""
