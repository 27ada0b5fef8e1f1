"""Lines that no star has, and lines that this one lost: what each method makes of the very same ones (H1.2)."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd

from core.metrics.injection import put_in, take_out
from core.metrics.lines import LINES
from core.pipeline import METHODS
from core.spectrum import Array, Spectra
from scripts.evaluate_audit import answer
from scripts.evaluate_judge import RESULTS
from scripts.judge_origin import family
from scripts.judge_stars import SEED, simulated
from scripts.study_tables import ORDER, ordered

LINES_TABLE, TABLE = RESULTS / "study_lines.csv", RESULTS / "study_audit.csv"
_TAKEN = ("H alpha", "Mg b", "Na D", "Ca II 8542")
_AGAIN = 500  # resamplings
_EACH = 3  # lines put into each star, alone
_STRENGTHS = (5.0, 20.0)  # of lines put in, in matched-filter sigma
_MORE = ["star", "experiment", "line", "wavelength", "strength", "survival", "painted", "method", "snr"]


def survival(args: argparse.Namespace) -> None:
    """The audit's survival and paint without its flags, method by method on the same lines; writes study_audit.csv."""
    wanted = args.methods.split(",") if args.methods else [m for m in ORDER if family(m) in METHODS]
    parts = []
    for snr in args.snr or (10.0,):
        asked = simulated(snr, 400)
        few = asked.spectra.select(np.arange(args.lines_of))
        for method in wanted:
            parts.append(lines(few, asked.truth[: args.lines_of], method, snr, args.slow_draws))
            print(card(parts[-1]).to_string(), flush=True)
    new = pd.concat(parts, ignore_index=True)
    if LINES_TABLE.exists():
        old = pd.read_csv(LINES_TABLE)
        again = set(zip(new["method"], new["snr"], strict=True))
        old = old[[at not in again for at in zip(old["method"], old["snr"], strict=True)]]
        new = pd.concat([old, new], ignore_index=True)
    new.to_csv(LINES_TABLE, index=False, float_format="%.5g")
    card(new).to_csv(TABLE, index=False, float_format="%.4g")


def lines(stars: Spectra, truth: Array, method: str, snr: float, draws: int) -> pd.DataFrame:
    """A row per star and line, put in or taken out; a method is asked with one seed about the star with and without."""
    ask = partial(answer, method)
    put = put_in(stars, ask, draws, SEED, _EACH, _STRENGTHS).assign(experiment="put in")
    taken = take_out(stars, truth, ask, draws, SEED, [LINES[name] for name in _TAKEN]).assign(experiment="take out")
    both = pd.concat([put, taken], ignore_index=True).assign(method=method, snr=snr)
    both["line"] = both["line"].astype(str)
    return both[_MORE]


def card(rows: pd.DataFrame) -> pd.DataFrame:
    """By S/N and method: median share kept of lines of 5-10 and 10-20 sigma that no star has; of lines of more than 10
    sigma that were taken out, the median share painted back, and how many are by a fifth and more; with errors."""
    out = []
    for (snr, method), part in rows.groupby(["snr", "method"], sort=False):
        strong = part["strength"].abs()
        put = part["experiment"] == "put in"
        row = {"snr": snr, "method": method, "stars": part["star"].nunique()}
        kinds = {"kept_5_10": part[put & (strong < 10)].dropna(subset="survival").set_index("star")["survival"],
                 "kept_10_20": part[put & (strong >= 10)].dropna(subset="survival").set_index("star")["survival"],
                 "painted": part[~put & (strong > 10)].dropna(subset="painted").set_index("star")["painted"]}
        for name, known in kinds.items():
            row |= {name: known.median(), f"{name}_err": by_star(known, np.median), f"{name}_lines": len(known)}
        false = (kinds["painted"] > 0.2).astype(float)
        row |= {"false_lines": false.mean(), "false_lines_err": by_star(false, np.mean)}
        out.append(row)
    return ordered(pd.DataFrame(out))


def by_star(values: pd.Series, of: Callable[[Array], float]) -> float:
    """Standard error of a statistic of lines by resampling their stars (the index): lines of one star go together."""
    each = [group.to_numpy(np.float64) for _, group in values.groupby(level=0)]
    if not each:
        return float("nan")
    pick = np.random.default_rng(3).integers(len(each), size=(_AGAIN, len(each)))
    return float(np.std([of(np.concatenate([each[i] for i in p])) for p in pick]))
