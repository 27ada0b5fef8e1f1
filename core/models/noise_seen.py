"""The noise a network was trained on, in a few numbers, and whether an observation's is far from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import median_filter

from core.data.grid import WAVE
from core.models.network import true_noise
from core.models.observation import Observation
from core.spectrum import ARM_JOIN, Array

#: what is looked at in a map of the true deviation, and what it says when it is far from what was trained on
FEATURES: dict[str, str] = {
    "level": "median deviation of the noise [continuum]",
    "tilt": "median deviation in the blue arm over that in the red",
    "step": "deviation just below the join of the arms over that just above",
    "roughness": "median ratio of neighbouring pixels' deviations",
    "peaks": "deviation over its surroundings' in the worst pixel of a hundred",
    "dead": "share of dead pixels",
    "gap": "longest run of dead pixels between live ones",
}
_RATIOS = ("level", "tilt", "step", "roughness", "peaks")  # kept as logarithms
_AROUND = 101  # pixels that a peak stands out of
_JOIN = 100.0  # Angstrom on either side of the arms' join
_FAR = 0.1  # of a range's width, beyond either end of it: "far outside"
_RHO = 0.1  # further from the correlation that was trained on than this is far
_ENDS = (0.1, 99.9)  # percentiles of the training maps that are the ends of a range


def features(sigma: npt.ArrayLike) -> dict[str, Array]:
    """FEATURES of maps (B, 3840) of the true deviation [continuum], infinite in dead pixels: (B,) each; NaN where a
    map has no pixel to tell."""
    maps = np.atleast_2d(np.asarray(sigma, dtype=np.float64))
    live = np.isfinite(maps)
    log = np.where(live, np.log(np.where(live, maps, 1.0)), np.nan)
    blue = WAVE < ARM_JOIN
    below, above = blue & (ARM_JOIN - _JOIN < WAVE), ~blue & (ARM_JOIN + _JOIN > WAVE)
    out = {name: np.full(len(maps), np.nan) for name in FEATURES}
    for b, row in enumerate(log):
        seen = live[b]
        filled = np.interp(np.arange(row.size), np.flatnonzero(seen), row[seen])
        out["level"][b] = np.median(row[seen])
        for name, one, other in (("tilt", blue, ~blue), ("step", below, above)):
            if (seen & one).any() and (seen & other).any():
                out[name][b] = np.median(row[seen & one]) - np.median(row[seen & other])
        pairs = seen[1:] & seen[:-1]
        if pairs.any():
            out["roughness"][b] = np.median(np.abs(np.diff(row))[pairs])
        out["peaks"][b] = np.percentile((filled - median_filter(filled, _AROUND, mode="nearest"))[seen], 99)
        out["dead"][b] = 1 - seen.mean()
        inner = np.diff(np.flatnonzero(seen))
        out["gap"][b] = (inner.max() - 1) if inner.size else 0
    return out


@dataclass(frozen=True)
class Seen:
    """What a network was trained on: the range of each feature, and the correlation (blue, red) of the noise."""

    ranges: Mapping[str, tuple[float, float]]
    rho: tuple[float, float]

    @classmethod
    def of(cls, card: Mapping[str, Any]) -> Seen:
        """What a checkpoint's card declares.

        Raises:
            ValueError: it declares nothing.
        """
        try:
            told = card["noise"]
            ranges = {name: (float(low), float(high)) for name, (low, high) in told["ranges"].items()}
            return cls(ranges, (float(told["rho"][0]), float(told["rho"][1])))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the card of {card.get('what', 'a network')} does not declare the noise it was trained "
                             f"on ({error!r}); run `python -m scripts.declare_noise NAME`.") from error

    def warnings(self, observation: Observation) -> list[str]:
        """A sentence for each feature in which some star's map, or the correlation, is far outside."""
        _, sigma = true_noise(observation)
        found = features(sigma.cpu().numpy())
        out = []
        for name, (low, high) in self.ranges.items():
            margin = _FAR * (high - low)
            odd = (found[name] < low - margin) | (found[name] > high + margin)
            if odd.any():
                at = found[name][odd][0]
                a, b, c = (np.exp(v) if name in _RATIOS else v for v in (low, high, at))
                out.append(f"{FEATURES[name]}: {c:.3g} in {observation.keys[int(np.flatnonzero(odd)[0])]}"
                           f"{f' and in {int(odd.sum()) - 1} more' if odd.sum() > 1 else ''}; trained on {a:.3g} to "
                           f"{b:.3g}")
        apart = np.abs(np.subtract(observation.noise.rho, self.rho)).max()
        if apart > _RHO:
            own, trained = (", ".join(f"{r:.2f}" for r in pair) for pair in (observation.noise.rho, self.rho))
            out.append(f"correlation of neighbouring pixels' noise (blue, red): {own}; trained on {trained}")
        return [f"outside the noise this network was trained on, so its answer is not to be trusted: {line}."
                for line in out]


def declared(sigma: npt.ArrayLike, rho: tuple[float, float], source: str) -> dict[str, Any]:
    """What a card says of the noise: ranges over training maps (n, 3840), correlation, and how that is known."""
    found = features(sigma)
    ranges = {name: [round(float(v), 4) for v in np.nanpercentile(values, _ENDS)] for name, values in found.items()}
    return {"ranges": ranges, "rho": [round(float(r), 4) for r in rho], "maps": len(np.atleast_2d(sigma)),
            "source": source}
