"""Writes into committed cards on which noise maps their networks were trained: `python -m scripts.declare_noise`."""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np

from core import checkpoint
from core.data.dataset import SNR, batch
from core.data.noise import LAMOST_NOISE
from core.models.noise_seen import declared
from core.spectrum import Array
from core.training.feed import simulator

NETWORKS = ("supervised", "supervised_ivar", "dncnn")
_SEED = 31  # of the maps; any others of the training's law serve as well


def maps(number: int, seed: int = _SEED) -> Array:
    """(number, 3840) noise maps as training makes them: true deviation [continuum], infinite in dead pixels."""
    made = batch(simulator(), number, np.random.default_rng([seed, number]))
    return np.asarray(made.sigma, dtype=np.float64)


def told(sigma: Array, source: str) -> dict[str, Any]:
    """The card's word on noise; S/N and correlation are the training code's own."""
    return declared(sigma, LAMOST_NOISE.rho, source) | {"snr": list(SNR)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(NETWORKS), help="of networks (default: those trained before "
                        "cards told)")
    parser.add_argument("--maps", type=int, default=3000, help="drawn to say between what they lie")
    args = parser.parse_args()
    found = told(maps(args.maps), "maps drawn by the training code after the training, not recorded in it")
    for name in args.names:
        card = checkpoint.path_of(name).with_suffix(".json")
        whole = json.loads(card.read_text()) | {"noise": found}
        card.write_text(json.dumps(whole, indent=1, allow_nan=False) + "\n")  # the weights' hash stays what it was
        print(name, found["ranges"])


if __name__ == "__main__":
    main()
