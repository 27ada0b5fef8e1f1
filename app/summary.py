"""What the page shows of a method's draws: one function from draws to Answer, for every view."""

from __future__ import annotations

from app.shown import Answer
from core.metrics import fidelity
from core.question import Question
from core.spectrum import Array, Samples


def answer_of(samples: Samples, question: Question, lines: fidelity.Mask, reference: Array | None) -> Answer:
    """A method's answer about one star.

    Args:
        samples: (n, 1, L) its draws.
        question: what it was asked: the spectra as shown, how many draws, the settings.
        lines: (L,) True inside the zoomed windows.
        reference: (L,) truth, or what comes nearest to it; None where there is none.
    """
    spectra = question.spectra
    live = spectra.measured[0]
    wide = len(samples.draws) > 1 and bool(samples.spread.any())
    middle = samples.quantile(0.5) if wide else samples.draws[0]

    def rms(pixels: fidelity.Mask) -> float | None:
        return None if reference is None else float(fidelity.rms_error(middle[0], reference, pixels))

    low, high = (samples.quantile(q)[0] if wide else None for q in (0.16, 0.84))
    return Answer(
        samples.method, middle[0], low, high, fidelity.residual(middle, spectra)[0],
        float(fidelity.chi_square(middle, spectra)[0]), float(fidelity.chi_square(middle, spectra, lines)[0]),
        rms(live), rms(live & lines), question.draws, question.settings,
        samples.draws[:, 0] if wide else samples.draws[:1, 0], warnings=tuple(samples.origin.get("warnings", ())))
