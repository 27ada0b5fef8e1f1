"""How much the audit can say: the counts behind its shares, with intervals, and false paint that went unflagged."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import beta

_LEVEL, _AGAIN = 0.95, 2000
_GONE, _BACK = 0.5, 0.2  # of a line: less survives of one that is removed, more comes back of one that is painted


def exact(hits: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share of independent trials (Clopper & Pearson 1934)."""
    tail = (1 - _LEVEL) / 2
    low = beta.ppf(tail, hits, of - hits + 1) if hits else 0.0
    high = beta.ppf(1 - tail, hits + 1, of - hits) if hits < of else 1.0
    return float(low), float(high)


def by_star(hit: pd.Series, star: pd.Series) -> tuple[float, float]:
    """The 95 % interval of a share whose trials go together star by star: stars are resampled, NaN for one star."""
    per = hit.astype(float).groupby(star.astype(str)).agg(["sum", "size"]).to_numpy()
    if len(per) < 2:
        return float("nan"), float("nan")
    pick = np.random.default_rng(5).integers(len(per), size=(_AGAIN, len(per)))
    again = per[pick].sum(axis=1)
    low, high = np.quantile(again[:, 0] / again[:, 1], [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)


def _count(name: str, hit: pd.Series, star: pd.Series) -> dict[str, float]:
    """Hits, of how many, on how many stars, and both intervals."""
    hits, of = int(hit.sum()), len(hit)
    out = {name: hits, f"{name}_of": of, f"{name}_stars": star.nunique()}
    for kind, ends in (("", exact(hits, of) if of else (np.nan, np.nan)), ("_star", by_star(hit, star))):
        out |= {f"{name}{kind}_low": ends[0], f"{name}{kind}_high": ends[1]}
    return out


def counts(rows: pd.DataFrame) -> pd.DataFrame:
    """A row a method and S/N, each count with how many it is of and its 95 % intervals.

    alarms: unchanged stars flagged; removed: lines of 5-10 sigma of which less than half survives; caught: those of
    them that were flagged; painted: lines above 10 sigma that were taken out and came back by more than a fifth,
    h_alpha of them H alpha; seen: painted lines that were flagged.
    """
    out = []
    for (method, snr), part in rows.groupby(["method", "snr"], sort=False):
        none, put, taken = (part[part["experiment"] == e] for e in ("nothing", "put in", "take out"))
        middle = put[put["strength"].abs().between(5, 10, inclusive="left")]
        gone = middle[middle["survival"] < _GONE]
        strong = taken[(taken["strength"].abs() > 10) & taken["painted"].notna()]
        back = strong[strong["painted"] > _BACK]
        row = {"method": method, "snr": snr, "h_alpha": int((back["line"].astype(str) == "H alpha").sum())}
        for name, hit, of in (("alarms", none["flagged"], none), ("removed", middle["survival"] < _GONE, middle),
                              ("caught", gone["flagged"], gone), ("painted", strong["painted"] > _BACK, strong),
                              ("seen", back["flagged"], back)):
            row |= _count(name, hit.astype(bool), of["star"])
        out.append(row)
    return pd.DataFrame(out)


def shown_counts(table: pd.DataFrame) -> pd.DataFrame:
    """The page's, of methods with a prior: each count of how many, and its 95 % interval, the wider of the two."""
    table = table[table["method"].isin(["exact", "mixture", "wiener"])]
    out = table[["method", "snr"]].copy()
    for name, heading in (("alarms", "false alarms"), ("removed", "removed"), ("caught", "of these flagged"),
                          ("painted", "painted back"), ("seen", "of these flagged ")):
        ends = {end: table[[f"{name}_{end}", f"{name}_star_{end}"]] for end in ("low", "high")}
        out[heading] = [f"{a} of {b}" if not b else f"{a} of {b} ({low:.2f}-{high:.2f})" for a, b, low, high in
                        zip(table[name], table[f"{name}_of"], ends["low"].min(axis=1), ends["high"].max(axis=1),
                            strict=True)]
    return out.assign(**{"painted: H alpha": table["h_alpha"]}).sort_values(["method", "snr"])
