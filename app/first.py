"""What a first visit shows, by rule: the star whose line no prior holds, so that a flag is honest and to be seen."""

from __future__ import annotations

import math
from collections.abc import Mapping

from app import resources
from app.shown import Star


def planted(star: Star) -> float:
    """Wavelength [vacuum Angstrom] of a line that was put into a simulated star, NaN for every other."""
    value = star.facts.get("planted", math.nan) if star.simulated else math.nan
    return float(value) if isinstance(value, float) else math.nan


def star(stars: Mapping[str, Star]) -> str | None:
    """The key of the star to begin with.

    A real one of the folder named at start, where there is one (`resources.default`); else of the bundled stars with
    a line put in the one with the best data, at the S/N of a first visit; else whatever is the default without them.
    """
    usual = resources.default(stars)
    if usual is None or not stars[usual].simulated:
        return usual
    known = [key for key, one in stars.items() if one.source == "Simulated" and math.isfinite(planted(one))]
    return max(known, key=lambda key: stars[key].own, default=usual)
