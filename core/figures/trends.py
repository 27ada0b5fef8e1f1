"""What is followed along S/N beside bias and scatter: the share of truths inside an interval, and scores."""

from __future__ import annotations

import numpy as np
import pandas as pd

from core.figures import sheets
from core.figures.rows import KEYS, Methods, groups, samples, select
from core.figures.series import ranked
from core.figures.sheets import Band, Panel, Points, Sheet, around, array, dodged, flat, grid, point, snr_axis
from core.figures.style import INSIDE_GATE, label, named, ordered
from core.metrics import ranks
from core.spectrum import Array

LEVEL = 0.6827
#: Scores of a whole spectrum, as `core.pipeline.measure` gives them: name on an axis, unit, what a perfect one has.
SCORES = {"rms": ("rms error of the spectrum", "continuum", None), "mae": ("mean absolute error", "continuum", None),
          "bias": ("mean error of the spectrum", "continuum", 0.0), "ssim": ("SSIM in one dimension", "", 1.0),
          "chi2": ("chi-square per pixel", "", 1.0), "coverage": ("share of pixels inside 68 %", "", LEVEL),
          "width": ("mean width of the draws", "continuum", None)}


def inside(table: pd.DataFrame, quantity: str, methods: Methods = None, level: float = LEVEL) -> pd.DataFrame:
    """Share of truths inside the central interval of one level, by sample, method and S/N.

    Args:
        table: columns star, sample, method, quantity, snr, truth, rank, n; methods that answer once are left out.
        quantity: one name, or several at once by what they begin with, up to the colon ('EW:', 'flux:').
        methods: some, all by default; level: of the interval.

    Returns:
        sample, method, snr, inside, error (binomial, by stars: rows of one star hang together), stars.

    Raises:
        ValueError: as `core.figures.series.coverage_curve`, a level outside (0, 1).
    """
    share, out = ranks.probabilities([level]), []
    for key, group, stars in ranked(table, quantity, methods):
        rank, n = ranks.checked(group["rank"], group["n"])
        got = float((ranks.part_below(rank, n, (1 + share) / 2) - ranks.part_below(rank, n, (1 - share) / 2)).mean())
        p = (stars * got + 0.5) / (stars + 1)
        out.append(key | {"inside": got, "error": np.sqrt(p * (1 - p) / stars), "stars": stars})
    return pd.DataFrame(out)


def score(table: pd.DataFrame, name: str, methods: Methods = None) -> pd.DataFrame:
    """Median over stars of a score, by sample, method and S/N.

    Args:
        table: columns star, sample, method, quantity, snr, truth (not looked at), mean (the score).
        name: of SCORES; methods: some, all by default.

    Returns:
        sample, method, snr, median, low, high (16 and 84 % of the stars), stars.

    Raises:
        ValueError: as `core.figures.rows.select`.
    """
    out = []
    for key, group in groups(select(table, name, ["mean"], methods), KEYS):
        low, median, high = np.percentile(group["mean"].to_numpy(np.float64), [15.87, 50, 84.13])
        out.append(key | {"median": median, "low": low, "high": high, "stars": group["star"].nunique()})
    return pd.DataFrame(out)


def inside_curve(table: pd.DataFrame, quantity: str, methods: Methods = None) -> Sheet:
    """Share of truths inside the 68 % interval against S/N.

    Args:
        table, quantity, methods: as in `inside`, which computes what is drawn.

    Raises:
        ValueError: as `inside`.
    """
    rows = inside(table, quantity, methods)
    names, (ticks, ends) = ordered(rows["method"].tolist()), snr_axis(rows)
    points = [_followed(part, names, "inside", sheets.both(part["error"])) for _, part in _curves(rows)]
    low, high = INSIDE_GATE
    gate = Band(array(ends), np.full(2, low), np.full(2, high), f"gate {low:g}-{high:g}")
    reach = around([p.y + side * np.nan_to_num(e[0]) for p in points if (e := p.error) is not None
                    for side in (-1, 1)] + [np.array([0.4, 0.9])], margin=0.03)
    panel = Panel("S/N per pixel (g)", f"Inside 68 %, {named(quantity)[0]}", points=tuple(points), x_range=ends,
                  bands=(gate,), rules=(flat(ends, LEVEL),), ticks=ticks, log_x=True,
                  y_range=(max(reach[0], 0.0), min(reach[1], 1.0)))
    return grid([(panel,)], 1, (1.0,), 84, samples(rows))


def score_curve(table: pd.DataFrame, name: str, methods: Methods = None) -> Sheet:
    """Median star's score against S/N, with bars that hold 68 % of the stars.

    Args:
        table, name, methods: as in `score`, which computes what is drawn.

    Raises:
        ValueError: as `score`.
    """
    rows = score(table, name, methods)
    names, (ticks, ends) = ordered(rows["method"].tolist()), snr_axis(rows)
    points = [_followed(part, names, "median", np.array([part["median"] - part["low"], part["high"] - part["median"]]))
              for _, part in _curves(rows)]
    said, unit, perfect = SCORES.get(name, (*named(name), None))
    log = bool((rows["low"] > 0).all() and rows["high"].max() > 8 * rows["low"].min())
    panel = Panel("S/N per pixel (g)", label(said[0].upper() + said[1:], unit), points=tuple(points), x_range=ends,
                  rules=() if perfect is None else (flat(ends, perfect),), ticks=ticks, log_x=True, log_y=log,
                  y_range=sheets.above(rows[["low", "high"]]) if log else around([rows["low"], rows["high"]]))
    return grid([(panel,)], 1, (1.0,), 84, samples(rows))


def _curves(rows: pd.DataFrame) -> list[tuple[tuple[str, str], pd.DataFrame]]:
    return [(key, part) for key, part in rows.groupby(["method", "sample"], sort=False)]


def _followed(part: pd.DataFrame, names: list[str], column: str, error: Array) -> Points:
    """One method's curve of one sample, moved aside a little."""
    sample, method = part["sample"].iloc[0], part["method"].iloc[0]
    pairs = list(zip(part["snr"], part["stars"], strict=True))
    return Points(method, dodged(array(part["snr"]), names.index(method), len(names)), array(part[column]), error,
                  sample == "real", hover=tuple(f"S/N {s:g}, {n} stars" for s, n in pairs),
                  keys=tuple(point(sample, method, s) for s, _ in pairs))
