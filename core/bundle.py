"""One star for a paper and for good: figures, spectra, draws and lines in a zip, and the command to make it again."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import zipfile
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core import believed, pipeline, products, report, star_tables
from core.cache import rounded
from core.data import lamost, noise
from core.figures import paper
from core.figures.sheets import Sheet
from core.figures.star import Answer, Star, star_sheet, window_sheet
from core.metrics.planted import plant
from core.request import Request
from core.spectrum import Array, Samples, Spectra

FIGURES = ("spectrum", "lines")
_FIRST = (1980, 1, 1, 0, 0, 0)  #: date of all in the zip: the earliest it can hold, so that bytes repeat
_README = """{title}
Made by Trueline {version}.

figures/        {journal}, two columns: PDF (fonts embedded) and SVG are vectors, PNG has 600 dots per inch
spectrum.ecsv   wavelengths, flux, true and quoted sigma, each method's median and quantiles, its share of prior
spectrum.fits   the same (SPECTRUM), the flags (FLAGS), and every draw (DRAWS_<METHOD>: draws, pixels)
lines.ecsv      equivalent width, depth, width and velocity of each line by each method, with errors
flags.ecsv      what a method removed or painted
provenance.json versions, SHA-256 of the checkpoints, seed, settings, threads, and the link to the page

To make it again, from a checkout of the same version:
{command}
"""


@dataclass(frozen=True, eq=False)
class Bundle:
    """A star with its answers.

    Args:
        request: what was asked for; own: the star as observed (one row), before noise or a line was added.
        spectra: as asked about; answers: draws (n, 1, L), `rounded`; truth: (L,) with the
            line that was put in, or None.
    """

    request: Request
    own: Spectra
    spectra: Spectra
    answers: tuple[Samples, ...]
    truth: Array | None = None

    @property
    def title(self) -> str:
        """The star, its S/N, and whether its truth is known."""
        facts = self.own.meta.iloc[0]
        simulated = str(facts.get("origin", "observed")) != "observed"
        names = [str(facts.get("designation") or ""), self.own.stars[0]]
        name = names[1] if simulated or not names[0] else names[0]
        snr = f"{float(noise.snr(self.own)[0]):.1f}" + ("" if self.request.snr is None else f" → {self.request.snr:g}")
        line = "" if self.request.line is None else f"line put in at {self.request.line.wavelength:.1f} Angstrom, "
        return f"{name}, S/N {snr}, {line}" + ("simulated, truth known" if simulated else "observed, truth unknown")

    @property
    def reference(self) -> tuple[Array | None, str]:
        """The truth, or the star's own spectrum beside a degraded one, and which of them it is."""
        if self.truth is not None:
            return self.truth, "truth"
        if self.request.snr is None:
            return None, ""
        own = np.where(self.own.measured[0], self.own.flux[0], np.nan)
        return own, f"own spectrum, S/N {float(noise.snr(self.own)[0]):.0f} (not truth)"

    @cached_property
    def star(self) -> Star:
        """What the figures are drawn from; some seconds the first time."""
        answers = []
        for answer in self.answers:
            told = answer.origin.get("settings", {})
            note = f"strength {told['strength']:g}" if "strength" in told else ""
            trust = np.round(believed.trust(answer, self.spectra)[0], 6)
            answers.append(Answer(answer.method, answer.draws[:, 0],
                                  tuple(believed.flagged(answer, self.spectra)[0]), trust, note))
        reference, name = self.reference
        return Star(self.spectra, self.title, tuple(answers), reference, name,
                    float(report.velocities_of(self.own)[0]), self.request.air, self.request.rest)

    def sheet(self, name: str, columns: int = 2) -> Sheet:
        """A figure by its name in FIGURES, for so many columns.

        Raises:
            ValueError: no such figure.
        """
        if name not in FIGURES:
            raise ValueError(f"there is no figure {name!r} of a star; ask for {' or '.join(FIGURES)}.")
        return star_sheet(self.star) if name == "spectrum" else window_sheet(self.star, columns)

    def figure(self, name: str, kind: str, columns: int = 2) -> bytes:
        """A figure as PDF, SVG or PNG at the journal's width.

        Raises:
            ValueError: no such figure or kind, unknown journal or number of columns.
        """
        return paper.encoded(self.sheet(name, columns), kind, self.request.journal, columns)

    @property
    def asked(self) -> Request:
        """The request with the threads that PyTorch has here, for its command."""
        return replace(self.request, threads=torch.get_num_threads())

    def provenance(self, made: str = "") -> dict[str, Any]:
        """Where it all comes from, of JSON's types; `made`: a date, if it is to hold one."""
        digest = hashlib.sha256()
        for array in (self.own.flux, self.own.ivar):
            digest.update(np.ascontiguousarray(array).tobytes())
        request = asdict(self.asked) | {"line": None if self.request.line is None else self.request.line.text}
        return {"title": self.title, "made": made, "command": self.asked.command, "request": request,
                "observation_sha256": digest.hexdigest(), "checkpoints": products.checkpoints(),
                "versions": products.versions() | {"matplotlib": version("matplotlib")},
                "machine": f"{platform.machine()}, {'GPU' if torch.cuda.is_available() else 'CPU'}"}

    def files(self, made: str = "") -> dict[str, bytes]:
        """Everything by name; `made`: the date that provenance.json is to hold."""
        star = self.star
        flags = {a.method: a.flags for a in star.answers}
        trust = {a.method: a.trust for a in star.answers if a.trust is not None}
        before = self.own if self.truth is None and self.request.snr is not None else None
        lines = star_tables.lines(self.answers, self.spectra, self.truth, before, self.request.seed, shares=trust,
                                  flags=flags)
        found = star_tables.flags_table(self.own.stars[0], flags)
        spectrum = products.spectrum_table(self.spectra, self.answers, self.truth, trust)
        head = {"title": self.title, "seed": self.request.seed, "frame": "vacuum, as observed"}
        words = _README.format(title=self.title, version=version("trueline"), journal=self.request.journal,
                               command=self.asked.command)
        texts = {"README.txt": words, "lines.ecsv": products.ecsv(lines, head),
                 "flags.ecsv": products.ecsv(found, head), "spectrum.ecsv": products.ecsv(spectrum.to_pandas(), head),
                 "provenance.json": json.dumps(self.provenance(made), indent=1) + "\n"}
        out = {name: text.encode() for name, text in texts.items()}
        out["spectrum.fits"] = products.fits_bytes(spectrum, found, self.answers,
                                                   {"STAR": self.own.stars[0], "SEED": self.request.seed})
        for name in FIGURES:
            out |= {f"figures/{name}.{kind}": self.figure(name, kind) for kind in paper.METADATA}
        return out

    def zipped(self, made: str = "") -> bytes:
        """`files` as a zip, the same bytes for the same star but for the date in provenance.json."""
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, content in sorted(self.files(made).items()):
                packed.writestr(zipfile.ZipInfo(name, _FIRST), content, zipfile.ZIP_DEFLATED)
        return out.getvalue()


def bundle(request: Request, file: str | Path) -> Bundle:
    """The star of a request, read from a file, and every method asked about it.

    Args:
        file: where the star lies; the request has it in the words of its command.

    Raises:
        ValueError: no LAMOST spectrum, an S/N it cannot have, an unknown method, a line that cannot be put in.
    """
    own = lamost.read(file)
    truth = lamost.read_truth(file) if str(own.meta["origin"].iloc[0]) == "simulated" else None
    spectra = own if request.snr is None else noise.degrade(own, request.snr, request.seed)
    if request.line is not None:
        planted = plant(spectra, request.line)
        spectra = planted.spectra
        truth = None if truth is None else truth + planted.change
    answers = tuple(rounded(pipeline.reconstruct(spectra, a.method, a.draws, request.seed, **a.settings))
                    for a in request.asked)
    return Bundle(request, own, spectra, answers, truth)
