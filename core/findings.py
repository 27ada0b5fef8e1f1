"""Reads a star's kind and labels off its spectrum, as numbers that travel and keep, and back from these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass

import numpy as np

from core import believed, domain, report, star_tables
from core.metrics.flags import Flag
from core.reading import Found, Reading
from core.spectrum import Array

_FLAG = 5  # numbers of a Flag


@dataclass(frozen=True, eq=False)
class Kind:
    """Is it a star that the prior knows, and what does the prior say of it.

    Args:
        score: the verdict; by: labels, their errors, and the yardstick of trust, by the mixture.
    """

    score: domain.Score
    by: believed.ByMixture


def find(reading: Reading) -> Found:
    """The numbers that a reading asks for; some tenths of a second to some seconds.

    "kind": misfit (1,) [sigma], flags (n, 5), labels and errors (5,), variance (L,), as `kind_of` has them; "closed"
    and "labels": draws (n, 5) in the order and units of core.spectrum.LABELS.

    Raises:
        ValueError: more than one star, another grid, or no live pixel.
    """
    numbers = _FIND[reading.method](reading)
    return Found(reading.method, {name: np.asarray(array, dtype=np.float64) for name, array in numbers.items()})


def _kind(reading: Reading) -> dict[str, Array]:
    score, by = domain.score(reading.spectra), believed.by_mixture(reading.spectra)
    flags = np.array([astuple(flag) for flag in score.flags], dtype=np.float64).reshape(-1, _FLAG)
    return {"misfit": np.array([score.misfit]), "flags": flags, "labels": by.labels, "errors": by.errors,
            "variance": by.variance}


def _closed(reading: Reading) -> dict[str, Array]:
    return {"draws": report.closed_form(reading.spectra, star_tables.CLOSED_DRAWS, reading.seed)[:, 0]}


def _labels(reading: Reading) -> dict[str, Array]:
    if reading.samples is None:
        raise ValueError("labels are read off draws; give the reading `samples`.")
    return {"draws": report.labels_of(reading.samples, reading.spectra, seed=reading.seed)[:, 0]}


_FIND: dict[str, Callable[[Reading], dict[str, Array]]] = {"kind": _kind, "closed": _closed, "labels": _labels}


def kind_of(found: Found) -> Kind:
    """What a "kind" was found to be."""
    its = found.numbers
    misfit = float(its["misfit"][0])
    flags = tuple(Flag(*map(float, row)) for row in its["flags"])
    return Kind(domain.Score(misfit, flags), believed.ByMixture(misfit, its["labels"], its["errors"], its["variance"]))
