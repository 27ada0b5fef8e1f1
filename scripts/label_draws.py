"""Why label intervals are too wide: is the estimator read off the truth among the estimator read off the draws?"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
import torch

from core.models.estimators import RidgeLabels, propagate
from core.pipeline import reconstruct
from core.spectrum import Array
from scripts.evaluate_judge import RESULTS, RIDGE
from scripts.judge_stars import simulated
from scripts.pages import DOCS, fill, with_error
from scripts.shares import share

_SEED = 987654  # of stars that nothing else is asked about
_LABELS = ("Teff", "logg", "[Fe/H]", "[alpha/Fe]")
#: method -> draws, and of the stars the first so many: a network is slow
_ASKED = {"exact": (8, 30), "wiener": (16, 100), "mixture": (16, 100)}


def ranked(draws: Array, truth: Array) -> pd.DataFrame:
    """Ranks of truths (B,) among draws (n, B), as `scripts.shares` wants them."""
    return pd.DataFrame({"star": np.arange(len(truth)), "truth": truth, "rank": (draws < truth).sum(axis=0),
                         "n": len(draws), "std": draws.std(axis=0, ddof=1)})


def decomposed(read: Array, scattered: Array, clean: Array, labels: Array) -> dict[str, float]:
    """One label: the share inside without any error of the estimator, and as it is published.

    Args:
        read: (n, B) the estimator on the draws; scattered: the same, its own error drawn for each; clean: (B,) the
            estimator on the true spectrum; labels: (B,) the true label.

    Returns:
        spectrum: share of `clean` among `read`: .683 where the draws are right as far as the estimator sees them;
        published: share of `labels` among `scattered`; their errors; width: median standard deviation of `read`;
        scatter: median absolute error drawn.
    """
    whole = {"spectrum": share(ranked(read, clean)), "published": share(ranked(scattered, labels))}
    out = {f"{name}{end}": told[i] for name, told in whole.items() for i, end in enumerate(("", "_err"))}
    return out | {"width": float(np.median(read.std(axis=0, ddof=1))),
                  "scatter": float(np.median(np.abs(scattered - read)))}


def asked(snr: float = 10.0) -> pd.DataFrame:
    """A row a method and label, from fresh simulated stars."""
    torch.set_num_threads(1)
    stars = simulated(snr, max(number for _, number in _ASKED.values()), _SEED)
    ridge, out = RidgeLabels.load(RIDGE), []
    for method, (n, number) in _ASKED.items():
        some = np.arange(number)
        draws = reconstruct(stars.spectra.select(some), method, n, _SEED).draws
        read, scattered = (propagate(ridge, draws, rng) for rng in (None, np.random.default_rng(_SEED)))
        clean = propagate(ridge, stars.truth[None, some], None)[0]
        for i, label in enumerate(_LABELS):
            out.append({"method": method, "quantity": label, "snr": snr, "stars": number, "draws": n,
                        **decomposed(read[..., i], scattered[..., i], clean[:, i], stars.labels[some, i])})
        print(pd.DataFrame(out[-len(_LABELS):]).to_string(), flush=True)
    return pd.DataFrame(out)


def main() -> None:
    argparse.ArgumentParser(prog="python -m scripts.label_draws", description=__doc__).parse_args()
    table = asked()
    table.to_csv(RESULTS / "label_draws.csv", index=False, float_format="%.4g")
    print(table.to_string())
    page()


def page() -> None:
    """Its table in docs/judge.md."""
    table = pd.read_csv(RESULTS / "label_draws.csv")
    shown = table.assign(spectrum=with_error(table, "spectrum", 3), published=with_error(table, "published", 3))
    fill(DOCS / "judge.md", {"label-draws": shown[["method", "quantity", "stars", "draws", "spectrum", "published",
                                                   "width", "scatter"]]})


if __name__ == "__main__":
    main()
