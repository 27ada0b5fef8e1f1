"""Is a star of a kind the training spectra hold? What the mixture cannot explain of it, as a whole and in places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from core import believed
from core.metrics.flags import Flag
from core.spectrum import Spectra

DRAWS = 16  #: behind the mixture's answer whose flags are asked for: as many as behind its null
LEVEL = 0.01  #: share of stars of the prior that a flag puts outside


@dataclass(frozen=True)
class Score:
    """How unlike the training spectra one star is.

    Args:
        misfit: standard deviations by which the mixture's chi-square over the whole star is too large
            (core.models.star_posterior); it sees a star of another kind, or a noise that is not what it says.
        flags: lines that the mixture's own answer lacks or painted, strongest first: what is foreign in one place.
    """

    misfit: float
    flags: tuple[Flag, ...] = ()

    @property
    def inside(self) -> bool:
        """True for a star like those of the training: misfit at most `believed.OUTSIDE`, nothing flagged.

        LEVEL of the simulator's stars should be outside for a flag, hardly any for the misfit: 2 of 96 were
        (results/domain.csv).
        """
        return self.misfit <= believed.OUTSIDE and not self.flags

    @property
    def words(self) -> str:
        """The verdict and why, in a sentence."""
        why = []
        if self.misfit > believed.OUTSIDE:
            why.append(f"its chi-square is {self.misfit:.1f} sigma too large")
        if self.flags:
            first = self.flags[0]
            more = f" and {len(self.flags) - 1} more places" if len(self.flags) > 1 else ""
            why.append(f"the mixture misses {abs(first.strength):.1f} sigma at {first.wavelength:.0f} Angstrom{more}")
        if not why:
            return f"inside: nothing in it that the training stars do not have (misfit {self.misfit:+.1f} sigma)"
        return "outside: " + ", and ".join(why)

    def told(self) -> dict[str, Any]:
        """Plain values for a file."""
        return {"inside": self.inside, "misfit": self.misfit, "flags": len(self.flags), "words": self.words}


def score(spectra: Spectra) -> Score:
    """The domain score of one star, from the mixture's posterior and its own flags at level LEVEL.

    What it promises is about the simulator's stars and the noise as quoted. Of 46 real stars kept out of everything
    4 are outside at S/N 10, 13 at 30 and 22 at 100: there the prior misses what it misses of every real star, and
    "outside" is the rule rather than news. It says nothing of labels within the domain. An emission line that fills
    an absorption line is inside where real stars of the prior have such (an A star's H alpha at S/N 40).

    Raises:
        ValueError: more than one star, another grid, or no live pixel.
    """
    if len(spectra) != 1:
        raise ValueError(f"{len(spectra)} stars; give one.")
    from core import pipeline  # here: a page that shows a score does without PyTorch

    answer = pipeline.reconstruct(spectra, "mixture", DRAWS)
    return Score(believed.by_mixture(spectra).misfit, tuple(believed.flagged(answer, spectra, LEVEL)[0]))
