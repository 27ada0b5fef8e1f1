"""What one look at a star holds: the star, what is shown of it, each method's answer (data only, no Streamlit)."""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from app.crew import Job
from app.styles import style
from core.data.grid import vacuum_to_air
from core.metrics.flags import Flag
from core.question import UNCALIBRATED, UNDERTRAINED
from core.spectrum import Array, Spectra

if TYPE_CHECKING:
    from core.findings import Kind

#: what an observed star's sigma rests on, and what it leaves out: said on the page and in the file (docs/noise.md)
SIGMA_SOURCE = "measured on one 2011 plate"
RED_ARM = "Red arm: sky residuals shared by a plate add 1-2 σ to this band (not in σ)"
_BEFORE = 0.1  # of an answer that the clock alone may claim
#: what is read off a star beside its methods' answers, as it is called where it is waited for
READINGS = {"kind": "domain and trust", "closed": "labels in closed form"}
OF = "labels:"  #: and what begins the name of the labels of one method
MENDED = "Tenfold variance that the pilot survey quotes at strong lines, undone (docs/noise.md)"


def called(name: str) -> str:
    """What is waited for, by its `Waiting.method`: a method's name, or what is read beside it."""
    return f"labels of {style(name.removeprefix(OF)).name}" if name.startswith(OF) else \
        READINGS.get(name) or style(name).name


@dataclass(frozen=True)
class Star:
    """One row of a set of spectra, picked by its key.

    Args:
        key: what the URL calls it, `source:star`.
        source: where it came from: Simulated, Folder or Upload.
        among: the spectra it is a row of.
        row: which one.
        own: its own S/N_g, NaN where unknown.
        truth: (L,) clean flux in units of the star's continuum, None where nobody knows.
    """

    key: str
    source: str
    among: Spectra = field(repr=False)
    row: int
    own: float
    truth: Array | None = field(default=None, repr=False)

    @cached_property
    def spectra(self) -> Spectra:
        """The star alone, one row."""
        return self.among.select([self.row])

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        """What is known about the star, by the column names of `Spectra.meta`."""
        return dict(self.among.meta.iloc[self.row])

    @cached_property
    def name(self) -> str:
        """The designation of an observed star, else the id."""
        facts = self.facts
        return str((not self.simulated and facts.get("designation")) or facts.get("star") or self.key)

    @cached_property
    def simulated(self) -> bool:
        """True unless the star was observed by a telescope."""
        return bool(self.facts.get("origin", "observed") != "observed")

    @property
    def label(self) -> str:
        """One line for the picker, which is searched as text; a simulated star says so wherever it came from."""
        facts = self.facts
        source = self.source if self.source == "Simulated" or not self.simulated else f"{self.source}, simulated"
        kind = str(facts.get("subclass") or facts.get("class") or "").strip()
        name, number = self.name, str(facts.get("obsid") or facts.get("star") or "")
        parts = [source, name, kind, f"S/N {self.own:.0f}", number if number != name else ""]
        return " · ".join(part for part in parts if part)

    @cached_property
    def velocity(self) -> float:
        """Radial velocity [km/s], 0 where nobody gives a believable one."""
        velocity = self.facts.get("rv", math.nan)
        return float(velocity) if isinstance(velocity, float) and abs(velocity) < 3000 else 0.0

    @property
    def mended(self) -> int:
        """Pixels whose tenfold quoted variance was undone by the reader."""
        return int(self.facts.get("ivar_mended") or 0)


@dataclass(frozen=True)
class Answer:
    """One method's clean spectrum of one star.

    Args:
        method: name in core.pipeline.METHODS.
        flux: (L,) median of the draws in units of the continuum.
        low, high: (L,) 16 % and 84 % quantiles; None for a method without an uncertainty.
        residual: (L,) (y - flux) / (s sigma), NaN in dead pixels.
        chi2, chi2_lines: chi-square per live pixel, over all of them and over those in the zoomed windows.
        rms, rms_lines: rms difference from the look's reference over the same pixels [continuum]; None without one.
        draws: how many it rests on.
        settings: what the method was told, by name.
        drawn: (n, L) the draws themselves, one row for a method whose answer repeats itself.
        flags: what the method removed or painted, strongest first.
        trust: (L,) posterior over prior variance, 0 where data decide and 1 where the prior does; None where unknown.
        warnings: sentences about what the question has that the method was not made for.
    """

    method: str
    flux: Array
    low: Array | None
    high: Array | None
    residual: Array
    chi2: float
    chi2_lines: float
    rms: float | None = None
    rms_lines: float | None = None
    draws: int = 1
    settings: Mapping[str, float] = field(default_factory=dict)
    drawn: Array = field(default_factory=lambda: np.empty((0, 0)), repr=False)
    flags: tuple[Flag, ...] = ()
    trust: Array | None = field(default=None, repr=False)
    warnings: tuple[str, ...] = ()

    @property
    def bar(self) -> str:
        """What is known of its uncertainty, in the words that go with its name."""
        if self.low is None:
            return "no error bar"
        return "uncalibrated band" if self.method in UNCALIBRATED else "68 % band"


@dataclass(frozen=True)
class Waiting:
    """An answer that is being made.

    Args:
        method: name in core.pipeline.METHODS, or of a reading (READINGS, OF).
        draws: how many it will rest on, 0 for a reading.
        job: its making; what it says changes while one looks.
    """

    method: str
    draws: int
    job: Job = field(repr=False)

    @property
    def done(self) -> bool:
        """True once it is there, has failed or was cancelled: time to look again."""
        return self.job.future.done()

    @property
    def share(self) -> float:
        """How much of it is made, 0 to 1: by the sampler's calls, before the first of them by the clock."""
        if self.job.begun is None:
            return 0.0
        if self.job.calls:
            return self.job.calls / self.job.steps
        return min((time.monotonic() - self.job.begun) / max(self.job.seconds, 0.1), 1.0) * _BEFORE

    @property
    def left(self) -> float | None:
        """Seconds until it is there, about; None while it waits for its turn."""
        if self.job.begun is None:
            return None
        gone = time.monotonic() - self.job.begun
        whole = gone / self.share if self.job.calls else max(self.job.seconds, gone)
        return max(whole - gone, 0.0)

    @property
    def words(self) -> str:
        """How far it is, in words."""
        if self.job.begun is None:
            return f"{self.job.idle}, then about {max(self.job.seconds, 1.0):.0f} s"
        calls = f"{self.job.calls} of {self.job.steps} calls, " if self.job.steps > 1 else \
            f"{self.draws} draws, " if self.draws else ""
        gone = time.monotonic() - self.job.begun
        if not self.job.calls and gone > max(self.job.seconds, 1.0):  # the clock alone no longer knows
            return f"{calls}longer than usual, {gone:.0f} s so far"
        return f"{calls}{max(self.left or 0.0, 1.0):.0f} s left"


@dataclass(frozen=True)
class Look:
    """All that one view of a star is made from.

    Args:
        star: whose spectrum it is.
        spectra: one row, as shown: at the S/N asked for.
        error: (L,) standard deviation of each pixel, infinite where dead.
        snr: S/N_g asked for, the star's own when shown as observed.
        measured: S/N_g that the shown spectrum has.
        lines: (L,) True inside the zoomed windows.
        seed: of the added noise and of the draws.
        answers: one per method, in the order of METHODS.
        problems: sentences about what could not be shown.
        own: (L,) the star's own spectrum, NaN where dead, beside a degraded one whose truth nobody knows; else None.
        waiting: answers that are still being made.
        stale: of methods that are waited for, what this visitor saw last of them and this star: to be shown greyed.
        cancelled: methods whose answers were cancelled, until they are asked for again.
        kind: whether the star is one that the prior knows, and what that says of it; None until it is known.
    """

    star: Star
    spectra: Spectra
    error: Array
    snr: float
    measured: float
    lines: npt.NDArray[np.bool_]
    seed: int
    answers: tuple[Answer, ...]
    problems: tuple[str, ...] = ()
    own: Array | None = None
    waiting: tuple[Waiting, ...] = ()
    stale: tuple[Answer, ...] = ()
    cancelled: tuple[str, ...] = ()
    kind: Kind | None = field(default=None, repr=False)

    @cached_property
    def content(self) -> str:
        """A name for all that is shown of it, but for who is waited for and what went wrong."""
        star, given = self.star, self.spectra
        digest = hashlib.blake2b(repr((star.key, star.name, star.own, star.velocity, star.simulated, self.snr,
                                       self.measured, self.seed, given.noise)).encode())
        arrays = [given.wave, given.flux, given.ivar, star.truth, self.own]
        for answer in (*self.answers, None, *self.stale):
            if answer is not None:
                digest.update(repr((answer.method, answer.draws, dict(answer.settings), answer.flags)).encode())
                arrays += [answer.flux, answer.low, answer.high, answer.residual, answer.drawn, answer.trust]
            arrays.append(None)
        for array in arrays:
            digest.update(b"-" if array is None else np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    @property
    def own_name(self) -> str:
        """What the line of `own` is called, wherever it is drawn or compared with."""
        return f"own spectrum, S/N {self.star.own:.0f} (not truth)"

    @property
    def degraded(self) -> str:
        """The S/N_g: own, target where degraded, and measured where that differs from the target by over 2 %."""
        words = f"{self.star.own:.1f}"
        if self.snr < self.star.own:
            words += f" → {self.snr:.4g}"
            words += f" (measures {self.measured:.3g})" if abs(self.measured / self.snr - 1) > 0.02 else ""
        return words

    def table(self) -> pd.DataFrame:
        """One row per pixel: wavelengths, what was measured, the truth or the star's own spectrum, each method."""
        live = self.spectra.measured[0]
        columns: dict[str, Any] = {
            "wavelength_vacuum": self.spectra.wave, "wavelength_air": vacuum_to_air(self.spectra.wave),
            "flux": pd.Series(self.spectra.flux[0]).where(live),
            "sigma_quoted": pd.Series(self.spectra.sigma[0]).where(live),
            "sigma": pd.Series(self.error).where(live), "continuum": self.spectra.continuum[0],
        }
        if self.star.truth is not None:
            columns["truth"] = self.star.truth
        if self.own is not None:
            columns["own_spectrum"] = self.own
        for answer in self.answers:
            columns[answer.method] = answer.flux
            if answer.low is not None:
                columns |= {f"{answer.method}_q16": answer.low, f"{answer.method}_q84": answer.high}
        return pd.DataFrame(columns)

    def csv(self) -> str:
        """`table` with a header of comments that says what it is."""
        blue, red = self.spectra.noise.scale
        observed = not self.star.simulated
        bare = ", ".join(a.method for a in self.answers if a.low is None)
        drawn = ", ".join(" ".join([a.method, str(a.draws), *(f"{k}={v:g}" for k, v in a.settings.items())])
                          for a in self.answers if a.low is not None)
        wrong = ", ".join(a.method for a in self.answers if a.low is not None and a.method in UNCALIBRATED)
        short = ", ".join(a.method for a in self.answers if a.method in UNDERTRAINED)
        head = [
            "Trueline: one star as shown",
            f"star: {self.star.name}",
            "origin: SIMULATED, truth known" if self.star.simulated else "origin: OBSERVED, truth unknown",
            f"S/N_g: {self.star.own:.4g} its own, {self.snr:.4g} asked for, {self.measured:.4g} measured; "
            f"seed: {self.seed}",
            "wavelengths [Angstrom]; flux, sigma, truth and methods in units of the continuum;",
            "continuum: in the file's flux unit, multiply by it to come back; empty flux = not measured",
            f"sigma = s * sigma_quoted; s = {blue:.2f} (blue arm), {red:.2f} (red arm)"
            + (f", {SIGMA_SOURCE} (docs/noise.md)" if observed else ", as simulated"),
            *([RED_ARM.replace("this band", "the residuals").replace("σ", "sigma")] if observed else []),
            f"ivar_mended: {self.star.mended} pixels" + (f". {MENDED}" if self.star.mended else ""),
            *([f"own_spectrum: {self.own_name}"] if self.own is not None else []),
            *([f"without an uncertainty of their own: {bare}"] if bare else []),
            *([f"median and 16, 84 % quantiles of so many draws: {drawn}"] if drawn else []),
            *([f"not calibrated: the quantiles of {wrong} (docs/laboratory.md, docs/study.md)"] if wrong else []),
            *([f"methods of the literature, undertrained here: {short} (docs/study.md)"] if short else []),
            *(f"{answer.method}: {warning}" for answer in self.answers for warning in answer.warnings),
        ]
        lines = [re.sub(r"\s+", " ", line) for line in head]  # a header card must not break out of its comment
        return "".join(f"# {line}\n" for line in lines) + self.table().to_csv(index=False, float_format="%.6g")

    @property
    def file(self) -> str:
        """A file name for `csv`: the star's name and the S/N, letters and digits only."""
        return re.sub(r"[^A-Za-z0-9.+-]+", "_", f"trueline_{self.star.name}_snr{self.snr:.3g}") + ".csv"
