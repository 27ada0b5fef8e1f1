"""One star asked of one method, and a name for it that changes with everything the answer hangs on."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from core.data import hashes
from core.spectrum import Spectra

#: every method of core.pipeline, in its order, and the files in checkpoints/ that its draws hang on; a method that is
#: not here hangs on all of them. Here, and not there, because this module is read without PyTorch.
WEIGHTS: dict[str, tuple[str, ...]] = {
    "noisy": (), "savgol": (), "wavelet": (), "pca": ("gaussian",), "wiener": ("gaussian",), "mixture": ("mixture",),
    "dncnn": ("dncnn",), "supervised": ("supervised",), "supervised_ivar": ("supervised_ivar",),
    "supervised_mixture": ("supervised_mixture", "mixture"), "dncnn_blind": ("dncnn_blind",),
    "exact": ("mixture", "denoiser"), "dps": ("ddpm",), "pigdm": ("mixture", "denoiser"),
    "mmps": ("mixture", "denoiser"),
}
#: methods whose draws are known not to spread as the posterior does (docs/laboratory.md), or that nobody has shown to
#: (docs/study.md)
UNCALIBRATED = ("dps", "pigdm", "supervised", "supervised_ivar", "supervised_mixture")
#: methods of the literature, made anew here, whose training was cut short (docs/study.md)
UNDERTRAINED = ("dncnn", "supervised", "supervised_ivar")
#: those of WEIGHTS that are methods only where their checkpoint is
OPTIONAL = ("supervised_mixture", "dncnn_blind")
_CORE = Path(__file__).resolve().parent


@dataclass(frozen=True, eq=False)
class Question:
    """What core.pipeline.reconstruct is asked.

    Args:
        spectra: what was observed.
        method: name in core.pipeline.METHODS.
        draws: how many of each star; seed: of them.
        settings: of the method, plain JSON values.
    """

    spectra: Spectra = field(repr=False)
    method: str
    draws: int = 1
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def needs(self) -> dict[str, str]:
        """`weights` of its method."""
        return weights(self.method)

    @cached_property
    def key(self) -> str:
        """SHA-256 of observation, noise, sky patterns, star ids, method, settings, draws, seed, the files of WEIGHTS,
        the code that samples, and the version of torch."""
        told = {"stars": self.spectra.stars, "shape": self.spectra.flux.shape, "method": self.method,
                "noise": [self.spectra.noise.scale, self.spectra.noise.rho, self.spectra.noise.join],
                "settings": dict(self.settings), "draws": self.draws, "seed": self.seed,
                "weights": self.needs, "code": code()}
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
        for array in (self.spectra.wave, self.spectra.flux, self.spectra.ivar, self.spectra.patterns):
            digest.update(np.ascontiguousarray(array, dtype=np.float64).tobytes())
        return digest.hexdigest()


def methods() -> tuple[str, ...]:
    """Names of all methods there are here, in the order of core.pipeline."""
    return tuple(name for name in WEIGHTS if name not in OPTIONAL or (hashes.FOLDER / f"{name}.safetensors").exists())


def weights(method: str) -> dict[str, str]:
    """Hash of each file in checkpoints/ that the method hangs on, as they are now; `missing` where one is."""
    if (names := WEIGHTS.get(method)) is None:
        return {file.name: _digest(file) for file in sorted(hashes.FOLDER.glob("*.safetensors"))}
    return files(names)


def files(names: Sequence[str]) -> dict[str, str]:
    """Hash of each of these checkpoints, and of its card, as they are now; `missing` where one is."""
    paths = [hashes.FOLDER / f"{name}{ending}" for name in names for ending in (".safetensors", ".json")]
    return {path.name: _digest(path) for path in paths}


def _digest(file: Path) -> str:
    try:
        stat = file.stat()
        return _digest_at(file, stat.st_mtime_ns, stat.st_size)
    except OSError:
        return "missing"


@lru_cache(maxsize=64)
def _digest_at(file: Path, _changed: int, _size: int) -> str:
    return hashes.digest(file)


@lru_cache(maxsize=1)
def code() -> str:
    """Hash of the code between a spectrum and its draws: draws of other code are others' draws."""
    digest = hashlib.sha256(f"torch {version('torch')} on {platform.machine()}".encode())
    alone = [_CORE / name for name in ("spectrum.py", "pipeline.py", "networks.py")]
    for file in sorted([*alone, *(_CORE / "models").glob("*.py"), *(_CORE / "data").glob("*.py")]):
        digest.update(file.read_bytes())
    return digest.hexdigest()
