"""Three of the judge's stars before and after, for docs/study.md: what the networks make of them in their lines."""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from core.figures import paper
from core.figures.star import Answer, Star, window_sheet
from core.pipeline import reconstruct
from core.spectrum import LABELS
from scripts.judge_stars import SEED, simulated

ROOT = Path(__file__).resolve().parents[1]
SNR, NUMBER = 10.0, 400  # the judge's stars: one depends on how many are drawn with it
AMONG = 25  # of which the study asked
#: coolest, middle, hottest by rank among them, so that nobody picked them
RANKS = {"cool": 2, "middle": 12, "hot": 22}
METHODS = {"dncnn": 1, "supervised_ivar": 8, "exact": 16}  #: and their draws


def study(_: argparse.Namespace) -> None:
    """docs/study_star_*.png: three of the study's stars at S/N 10 in their lines, with three networks' answers."""
    asked = simulated(SNR, NUMBER)
    teff = asked.labels[:AMONG, list(LABELS).index("teff")]
    order = np.argsort(teff)
    for name, rank in RANKS.items():
        b = int(order[rank])
        one = asked.spectra.select([b])
        answers = tuple(Answer(method, reconstruct(one, method, draws, SEED).draws[:, 0])
                        for method, draws in METHODS.items())
        title = f"{one.stars[0]}, {teff[b]:.0f} K, S/N {SNR:.0f}"
        sheet = window_sheet(Star(one, title, answers, asked.truth[b], velocity=float(one.meta["rv"].iloc[0])))
        figure = paper.draw(sheet)
        file = paper.save(figure, ROOT / "docs" / f"study_star_{name}.png", "AAS", 2)
        plt.close(figure)
        whole = Image.open(file).convert("RGB")
        # two fifths of the print's pixels each way, 200 colours: a repository keeps its pictures for good
        whole.resize((whole.width * 2 // 5, whole.height * 2 // 5), Image.Resampling.LANCZOS).quantize(200).save(
            file, optimize=True)
        print(f"{file.name}: {title}")
