"""What the figures of equivalent widths, of the audit and of the floor draw, as small tables."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import beta

from core.figures.rows import Methods, at_snr, chosen, groups, need, select
from core.figures.style import ordered
from core.metrics.floor import rho

#: Borders of the strengths that are put together [standard deviations of the matched filter].
STRENGTHS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20)
#: What an experiment of the audit measures of a line; both are 1 where the answer holds the whole line.
SHARES = {"put_in": "survival", "take_out": "painted"}


def ew_scatter(table: pd.DataFrame, line: str, methods: Methods = None, snr: float | None = None) -> pd.DataFrame:
    """Equivalent widths of one line star by star: measured on the answer against true.

    Args:
        table: columns star, sample, method, quantity, snr, truth, mean, std.
        line: its name, as 'Mg b'; methods: some, all by default; snr: one of the table's, the nearest to 10 by default.

    Returns:
        star, sample, method, snr, truth, mean, std (NaN for a point estimate), residual = mean - truth [Angstrom].

    Raises:
        ValueError: a line, method or S/N that the table does not hold, columns missing.
    """
    need(table, ["std"])
    rows = select(table, f"EW:{line}", ["truth", "mean"], methods)
    rows = at_snr(rows, snr)
    out = pd.concat([group for _, group in groups(rows, ["method", "sample"])], ignore_index=True)
    out = out[["star", "sample", "method", "snr", "truth", "mean", "std"]]
    return out.assign(residual=out["mean"] - out["truth"])


def audit_curves(audit: pd.DataFrame, experiment: str = "put_in", methods: Methods = None, snr: float | None = None,
                 edges: npt.ArrayLike = STRENGTHS) -> pd.DataFrame:
    """What is left of a line and how often it is flagged, against its strength.

    Args:
        audit: columns method, snr, experiment, strength, flagged, limit, and survival (experiment 'put_in') or painted
            ('take_out'), of `core.metrics.injection`; absorption and emission count alike, by |strength|.
        experiment: 'put_in' or 'take_out'; methods: some, all by default; snr: one alone, all together by default.
        edges: rising borders of strength; empty bins and lines beyond the borders are left out.

    Returns:
        method, low, high (of the bin), strength (mean in it), share (mean survival, or what is painted back) and
        share_err (standard error), flagged (rate), flagged_low and flagged_high (68.27 % of the posterior under
        Jeffreys' prior; Brown, Cai & DasGupta 2001, Stat. Sci. 16, 101), limit (the matched filter's power for the
        very lines of the bin, mean), lines.

    Raises:
        ValueError: columns missing, an experiment, method or S/N that the audit does not hold, no line in any bin.
    """
    need(audit, ["method", "snr", "experiment"], "audit")
    names = audit["experiment"].astype(str).str.replace(" ", "_")
    if experiment not in SHARES or not (names == experiment).any():
        raise ValueError(f"no curves of experiment {experiment!r}; the audit has {', '.join(sorted(set(names)))}, and "
                         f"curves are drawn of {' and '.join(SHARES)}.")
    rows = audit[names == experiment]
    need(rows, ["strength", SHARES[experiment], "flagged", "limit"], "audit")
    rows = chosen(rows, methods, "audit")
    if snr is not None:
        rows = at_snr(rows, snr)
    borders = np.asarray(edges, dtype=np.float64)
    if borders.ndim != 1 or len(borders) < 2 or not (np.diff(borders) > 0).all():
        raise ValueError(f"edges {borders.tolist()} do not rise; give at least two borders of strength.")
    # the last bin holds its upper border
    size = rows["strength"].abs().to_numpy(np.float64)
    at = np.where(size == borders[-1], len(borders) - 2, np.searchsorted(borders, size, side="right") - 1)
    rows = rows.assign(size=size, at=at)[(at >= 0) & (at < len(borders) - 1)]
    if rows.empty:
        raise ValueError(f"no line of the audit has a strength of {borders[0]:g}-{borders[-1]:g}; give other edges.")
    out = []
    for key, group in groups(rows, ["method", "at"]):
        share = group[SHARES[experiment]].to_numpy(np.float64)
        share = share[np.isfinite(share)]
        n, k, i = len(group), int(group["flagged"].sum()), int(key["at"])
        low, high = beta.ppf([0.15865, 0.84135], k + 0.5, n - k + 0.5)
        out.append({"method": key["method"], "low": borders[i], "high": borders[i + 1],
                    "strength": group["size"].mean(),
                    "share": share.mean() if share.size else np.nan,
                    "share_err": share.std(ddof=1) / np.sqrt(share.size) if share.size > 1 else np.nan,
                    "flagged": k / n, "flagged_low": min(low, k / n), "flagged_high": max(high, k / n),
                    "limit": group["limit"].mean(), "lines": n})
    return pd.DataFrame(out)


def rho_curve(floor: pd.DataFrame, methods: Methods = None) -> pd.DataFrame:
    """RMSE over the Bayes floor's by method and S/N, of the stars whose floor held; 1 = nothing left to gain.

    Args:
        floor: columns star, snr, ok, rms_floor and 'rms:<method>' for each method; a star on which the method failed
            (NaN) counts as one without a floor.
        methods: some, all by default.

    Returns:
        method, snr, rho, error (bootstrap over stars, the same resamples each time so that a figure repeats), used,
        failed. A group of fewer than two stars with a floor is left out.

    Raises:
        ValueError: columns missing, a method that the table does not hold, no group of two stars with a floor.
    """
    need(floor, ["star", "snr", "ok", "rms_floor"], "floor table")
    known = [str(c).removeprefix("rms:") for c in floor if str(c).startswith("rms:")]
    if not known:
        raise ValueError("the floor table has no column 'rms:<method>'; give at least one method's errors.")
    asked = chosen(pd.DataFrame({"method": known}), methods, "floor table")["method"].tolist()
    out = []
    for method in ordered(asked):
        for snr, group in floor.groupby("snr", sort=True):
            rms = group[f"rms:{method}"].to_numpy(np.float64)
            ok = group["ok"].to_numpy(bool) & np.isfinite(rms)
            if ok.sum() >= 2:
                got = rho(rms, group["rms_floor"], ok, np.random.default_rng(0))
                out.append({"method": method, "snr": float(snr), "rho": got.value, "error": got.error,
                            "used": got.used, "failed": got.failed})
    if not out:
        raise ValueError("no S/N has two stars whose floor held; compute the floor of more stars.")
    return pd.DataFrame(out)
