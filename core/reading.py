"""What is read off one star beside its clean spectrum: its kind and its labels; the question, its name, its numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from core import question
from core.spectrum import Array, Samples, Spectra

#: what can be read, and the files in checkpoints/ that it hangs on. Here, and not in core.findings where it is done,
#: because this module is read without PyTorch.
WEIGHTS: dict[str, tuple[str, ...]] = {
    "kind": ("mixture", "labels"), "closed": ("mixture", "labels"), "labels": ("ridge", "library", "emulator")}
_CORE = Path(__file__).resolve().parent


@dataclass(frozen=True, eq=False)
class Reading:
    """What core.findings.find is asked.

    Args:
        spectra: one star, as observed.
        method: name in WEIGHTS. "kind": its domain, labels and the yardstick of trust, by the mixture; "closed": draws
            of its labels in closed form; "labels": draws of them by one method's draws.
        seed: of the draws of labels; "kind" has none.
        samples: of "labels": the draws (n, 1, L) that are read.

    Raises:
        ValueError: nothing of that name, or "labels" without draws.
    """

    spectra: Spectra = field(repr=False)
    method: str
    seed: int = 0
    samples: Samples | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.method not in WEIGHTS:
            raise ValueError(f"nothing called {self.method!r} is read off a star; ask for {' or '.join(WEIGHTS)}.")
        if (self.method == "labels") != (self.samples is not None):
            raise ValueError(f"{self.method!r} is read off {'draws' if self.method == 'labels' else 'no draws'}; "
                             f"{'give' if self.method == 'labels' else 'leave out'} `samples`.")

    @property
    def needs(self) -> dict[str, str]:
        """Hash of each file in checkpoints/ that it hangs on."""
        return question.files(WEIGHTS[self.method])

    @cached_property
    def key(self) -> str:
        """SHA-256 of observation, noise, star id, what is read, seed, draws, the files of WEIGHTS and the code."""
        told = {"stars": self.spectra.stars, "shape": self.spectra.flux.shape, "read": self.method, "seed": self.seed,
                "noise": [self.spectra.noise.scale, self.spectra.noise.rho, self.spectra.noise.join],
                "of": None if self.samples is None else [self.samples.method, self.samples.draws.shape],
                "weights": self.needs, "code": _code()}
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
        drawn = [] if self.samples is None else [self.samples.draws]
        for array in (self.spectra.wave, self.spectra.flux, self.spectra.ivar, self.spectra.patterns, *drawn):
            digest.update(np.ascontiguousarray(array, dtype=np.float64).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Found:
    """What was read: arrays of float64 by name, as core.findings has them.

    Args:
        method: of the Reading; numbers: nobody may write into them.
    """

    method: str
    numbers: Mapping[str, Array] = field(repr=False)


@lru_cache(maxsize=1)
def _code() -> str:
    """Hash of the code between a star and what is read off it, and of the flags' measured nulls."""
    digest = hashlib.sha256(question.code().encode())
    alone = [_CORE / f"{name}.py" for name in ("believed", "domain", "findings", "report", "star_tables")]
    nulls = _CORE.parent / "results" / "audit_nulls.npz"
    for file in sorted([*alone, *(_CORE / "metrics").glob("*.py"), *([nulls] if nulls.exists() else [])]):
        digest.update(file.read_bytes())
    return digest.hexdigest()
