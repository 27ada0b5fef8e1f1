"""Each figure of the house, composed of panels from a result table; `interactive` and `paper` put a coat on it."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from core.figures import series, series_lines, sheets
from core.figures.rows import Methods, at_snr, of_sample, samples
from core.figures.sheets import Band, Bars, Panel, Points, Rule, Sheet, around, array, dodged, flat, grid, snr_axis
from core.figures.style import label, named, ordered, style

UNIT = np.array([0.0, 1.0])


def bias_and_scatter(table: pd.DataFrame, quantity: str, methods: Methods = None) -> Sheet:
    """Bias over scatter of one quantity against S/N, filled for simulated stars, open for real ones.

    Args:
        table: columns star, sample, method, quantity, snr, truth, mean; quantity, methods: as in
            `series.bias_and_scatter`, which computes what is drawn.

    Raises:
        ValueError: columns missing, a quantity or method that the table does not hold, one without a truth.
    """
    rows = series.bias_and_scatter(table, quantity, methods)
    (name, unit), names = named(quantity), ordered(rows["method"].tolist())
    ticks, ends = snr_axis(rows)
    bias: list[Points] = []
    scatter: list[Points] = []
    for (method, sample), part in rows.groupby(["method", "sample"], sort=False):
        real = sample == "real"
        x = dodged(array(part["snr"]), names.index(method), len(names)) * (1.006 if real else 1.0)
        for out, column in ((bias, "bias"), (scatter, "scatter")):
            hover = tuple(f"S/N {s:g}, {n} stars" for s, n in zip(part["snr"], part["stars"], strict=True))
            keys = tuple(sheets.point(sample, method, s) for s in part["snr"])
            out.append(Points(method, x, array(part[column]), sheets.both(part[f"{column}_err"]), real, hover=hover,
                              keys=keys))
    gate = float(rows["gate"].iloc[0])
    band = () if np.isnan(gate) else (Band(array(ends), np.full(2, -gate), np.full(2, gate), "gate"),)
    reach = around([rows["bias"] - rows["bias_err"].fillna(0), rows["bias"] + rows["bias_err"].fillna(0)], zero=True)
    log = bool((rows["scatter"].max() > 8 * rows["scatter"].min()) and (rows["scatter"] > 0).all())
    upper = Panel("", label("Bias", unit), name[0].upper() + name[1:], points=tuple(bias), bands=band,
                  rules=(flat(ends, 0.0),), x_range=ends, y_range=reach, ticks=ticks, log_x=True)
    lower = Panel("S/N per pixel (g)", label("Scatter", unit), points=tuple(scatter), x_range=ends, ticks=ticks,
                  log_x=True, log_y=log, y_range=sheets.above(rows["scatter"]) if log else None)
    return grid([(upper, lower)], 1, (1.0, 1.0), 92, samples(rows))


def coverage(table: pd.DataFrame, quantity: str, methods: Methods = None, snr: float | None = None,
             difference: bool = False) -> Sheet:
    """Coverage against nominal level, a panel for each S/N (or one of them) with the band of a perfect posterior.

    Args:
        table: columns star, sample, method, quantity, snr, truth, rank, n; quantity, methods: as in
            `series.coverage_curve`, which computes what is drawn; snr: one alone.
        difference: draw coverage less the nominal level, which shows small departures.

    Raises:
        ValueError: columns missing, a quantity, method or S/N that the table does not hold, no method that draws.
    """
    rows = series.coverage_curve(table, quantity, methods)
    if snr is not None:
        rows = at_snr(rows, snr)
    panels = []
    for at, part in rows.groupby("snr", sort=True):
        points, bands = [], []
        for _, few in part.groupby("stars", sort=True):  # fewer stars, wider band: they lie one in another
            level, low, high = (np.concatenate([[0.0], few[c].iloc[: series.CELLS - 1], [1.0]])
                                for c in ("level", "low", "high"))
            less = level * difference
            bands.append(Band(level, low - less, high - less, "95 % of perfect posteriors"))
        for (method, sample), curve in part.groupby(["method", "sample"], sort=False):
            x, y = (np.concatenate([[0.0], curve[c], [1.0]]) for c in ("level", "coverage"))
            points.append(Points(str(method), x, y - x if difference else y, None, sample == "real", every=4,
                                 keys=(sheets.point(sample, method, at),) * len(x)))
        rules = (Rule(UNIT, UNIT * (not difference), ""),)
        span = around([e for b in bands for e in (b.low, b.high)] + [p.y for p in points]) if difference else (0.0, 1.0)
        panels.append((Panel(f"Nominal level, {named(quantity)[0]}",
                             "Coverage − nominal level" if difference else "Coverage",
                             note=f"S/N {at:g}\n{' / '.join(str(n) for n in sorted(set(part['stars'])))} stars",
                             points=tuple(points), bands=tuple(bands), rules=rules,
                             x_range=(0, 1), y_range=span, ticks=(0, 0.2, 0.4, 0.6, 0.8, 1)),))
    if difference:
        reach = around([p[0].y_range for p in panels if p[0].y_range], margin=0.0)
        panels = [(Panel(**{**p[0].__dict__, "y_range": reach}),) for p in panels]
    across = 1 if len(panels) == 1 else 2
    return grid(panels, across, (1.0,), 74 if across == 1 else 42, samples(rows))


def pit(table: pd.DataFrame, quantity: str, methods: Methods = None, snr: float | None = None,
        sample: str = "simulated", bins: int = 10) -> Sheet:
    """PIT histograms, a panel per method that draws, at one S/N (the nearest to 10 by default).

    Args:
        table: columns as of `coverage`; quantity, methods, bins: as in `series.pit_histogram`, which computes what is
            drawn; snr: one of the table's; sample: whose stars.

    Raises:
        ValueError: as `coverage`, a sample that the table does not hold, no bins.
    """
    rows = at_snr(series.pit_histogram(of_sample(table, sample), quantity, methods, bins), snr)
    top = max(1.05 * float(rows[["density", "band_high"]].max().max()), 1.5)
    panels = []
    for method, part in rows.groupby("method", sort=False):
        edges = np.append(part["low"], part["high"].iloc[-1])
        keys = tuple(sheets.point(sample, method, *row) for row in part[["snr", "low", "high"]].to_numpy(float))
        band = Band(UNIT, np.full(2, part["band_low"].iloc[0]), np.full(2, part["band_high"].iloc[0]), "perfect, 95 %")
        panels.append((Panel(f"PIT, {named(quantity)[0]}", "Density", style(str(method)).name,
                             f"S/N {part['snr'].iloc[0]:g}, {part['stars'].iloc[0]} stars", bands=(band,),
                             bars=(Bars(str(method), edges, array(part["density"]), keys),),
                             rules=(flat((0, 1), 1.0),), x_range=(0, 1), y_range=(0, top), ticks=(0, 0.5, 1)),))
    return grid(panels, 3, (1.0,), 42, (sample,), legend=False)


def rank_check(table: pd.DataFrame, quantity: str, methods: Methods = None, snr: float | None = None,
               sample: str = "simulated", bins: int = 20) -> Sheet:
    """Rank histograms over the ECDF's departure from uniform with its simultaneous band, a column per method.

    Args:
        table, snr, sample: as in `pit`; quantity, methods, bins: as in `series.rank_histogram`, which with
            `series.rank_ecdf` computes what is drawn. Ranks are drawn over the number of draws + 1.

    Raises:
        ValueError: as `pit`, numbers of draws that differ within a method and S/N.
    """
    stars = of_sample(table, sample)
    bars = at_snr(series.rank_histogram(stars, quantity, methods, bins), snr)
    curves = at_snr(series.rank_ecdf(stars, quantity, methods), snr)
    height, reach = bars["count"] / bars["expected"], around([curves[c] for c in ("low", "high", "difference")])
    panels = []
    for method, part in bars.groupby("method", sort=False):
        curve, n = curves[curves["method"] == method], int(part["n"].iloc[0]) + 1
        edges = np.append(part["low"], part["high"].iloc[-1] + 1) / n
        z, low, high, y = (np.concatenate([[0.0], curve[c], [c == "z"]]) for c in ("z", "low", "high", "difference"))
        p = float(curve["p_value"].iloc[0])
        said = "" if np.isnan(p) else f"p = {p:.2g}" if p >= 0.001 else "p < 0.001"
        error = np.repeat(part["error"] / part["expected"], 2)  # of each bin alone
        keys = tuple(sheets.point(sample, method, part["snr"].iloc[0], *ends) for ends in itertools.pairwise(edges))
        upper = Panel("", "Count / expected", style(str(method)).name,
                      f"S/N {part['snr'].iloc[0]:g}, {part['stars'].iloc[0]} stars",
                      bands=(Band(np.repeat(edges, 2)[1:-1], array(1 - error), array(1 + error), "±1 sigma"),),
                      bars=(Bars(str(method), edges, array(height[part.index]), keys),), rules=(flat((0, 1), 1.0),),
                      x_range=(0, 1), y_range=(0, max(1.15 * float(height.max()), 1.8)), ticks=(0, 0.5, 1))
        lower = Panel(f"Rank, {named(quantity)[0]}", "ECDF − uniform", note=said,
                      points=(Points(str(method), z, y, None, mark=False),), bands=(Band(z, low, high, "95 %"),),
                      rules=(flat((0, 1), 0.0),), x_range=(0, 1), y_range=reach, ticks=(0, 0.5, 1))
        panels.append((upper, lower))
    return grid(panels, 3, (1.0, 1.0), 66, (sample,), legend=False)


def ew_scatter(table: pd.DataFrame, line: str, methods: Methods = None, snr: float | None = None) -> Sheet:
    """Measured against true equivalent width over the residuals, a column per method.

    Bias and scatter written in a panel are those of the simulated stars where there are any; stars beyond the residual
    panel are counted in it.

    Args:
        table: columns star, sample, method, quantity, snr, truth, mean, std; line, methods, snr: as in
            `series_lines.ew_scatter`, which computes what is drawn.

    Raises:
        ValueError: columns missing, a line, method or S/N that the table does not hold.
    """
    rows = series_lines.ew_scatter(table, line, methods, snr)
    numbers = series.bias_and_scatter(at_snr(table, rows["snr"].iloc[0]), f"EW:{line}")
    span = around([rows["truth"], np.percentile(rows["mean"], [1, 99])])
    reach = 1.15 * float(np.percentile(np.abs(rows["residual"]), 99)) or 1.0
    ends, panels, (name, unit) = np.array(span), [], named(f"EW:{line}")
    for method, part in rows.groupby("method", sort=False):
        clouds: tuple[list[Points], list[Points]] = ([], [])
        for sample, some in part.groupby("sample", sort=False):
            for cloud, column in zip(clouds, ("mean", "residual"), strict=True):
                cloud.append(Points(str(method), array(some["truth"]), array(some[column]), None, sample == "real",
                                    line=False, cloud=True, hover=tuple(some["star"].astype(str))))
        mine = numbers[numbers["method"] == method].sort_values("sample").iloc[-1]  # simulated before real
        out = int((part["residual"].abs() > reach).sum())
        said = f"bias {mine['bias']:+.2f}\nscatter {mine['scatter']:.2f}".replace("-", "−")
        upper = Panel("", label("Measured", unit), style(str(method)).name, said, tuple(clouds[0]),
                      rules=(Rule(ends, ends, "1 : 1"),), x_range=span, y_range=span)
        lower = Panel(label(f"True {name}", unit), "Residual", points=tuple(clouds[1]),
                      note=f"{out} outside" if out else "", rules=(flat(span, 0.0),), x_range=span,
                      y_range=(-reach, reach))
        panels.append((upper, lower))
    return grid(panels, 3, (1.7, 1.0), 62, samples(rows), legend=len(samples(rows)) > 1)


def audit_curves(audit: pd.DataFrame, experiment: str = "put_in", methods: Methods = None,
                 snr: float | None = None) -> Sheet:
    """What is left of a line over how often it is flagged, against its strength, beside the matched filter's limit.

    Args:
        audit: columns method, snr, experiment, strength, flagged, limit, survival or painted; the rest as in
            `series_lines.audit_curves`, which computes what is drawn.

    Raises:
        ValueError: columns missing, an experiment, method or S/N that the audit does not hold.
    """
    rows = series_lines.audit_curves(audit, experiment, methods, snr)
    left, flagged = [], []
    for method, part in rows.groupby("method", sort=False):
        x = array(part["strength"])  # not moved aside: beside a steep limit that would be a lie
        hover = tuple(f"{n} lines" for n in part["lines"])
        keys = tuple(sheets.point(experiment, method, *bin_) for bin_ in part[["low", "high"]].to_numpy(float))
        error = sheets.both(part["share_err"])
        left.append(Points(str(method), x, array(part["share"]), error, hover=hover, keys=keys))
        error = np.array([part["flagged"] - part["flagged_low"], part["flagged_high"] - part["flagged"]])
        flagged.append(Points(str(method), x, array(part["flagged"]), error, hover=hover, keys=keys))
    best = np.array([[np.average(g[c], weights=g["lines"]) for c in ("strength", "limit")]
                     for _, g in rows.groupby("low")]).T
    ends, whole = (0.0, float(rows["high"].max())), experiment == "put_in"
    ticks = tuple(float(t) for t in np.arange(0, ends[1] + 1, 5 if ends[1] > 8 else 1))
    upper = Panel("", "Share of EW that survives" if whole else "Share of EW painted back", points=tuple(left),
                  rules=(flat(ends, 1.0 if whole else 0.0),), x_range=ends, ticks=ticks,
                  y_range=around([p.y + s * np.nan_to_num(e) for p in left if (e := p.error) is not None
                                  for s in (-np.ones((2, 1)), np.ones((2, 1)))] + [UNIT]))
    lower = Panel("Line strength [sigma, matched filter]", "Flag rate", points=tuple(flagged), x_range=ends,
                  ticks=ticks, y_range=(-0.04, 1.04), rules=(Rule(best[0], best[1], "matched-filter limit", "dot"),))
    return grid([(upper, lower)], 1, (1.0, 1.0), 92)


def rho_curve(floor: pd.DataFrame, methods: Methods = None) -> Sheet:
    """RMSE over the Bayes floor's against S/N.

    Args:
        floor: columns star, snr, ok, rms_floor, 'rms:<method>'; methods: as in `series_lines.rho_curve`, which computes
            what is drawn.

    Raises:
        ValueError: columns missing, a method that the table does not hold, no two stars with a floor.
    """
    rows = series_lines.rho_curve(floor, methods)
    names, (ticks, ends) = ordered(rows["method"].tolist()), snr_axis(rows)
    log = bool(rows["rho"].max() > 4)
    points = [Points(str(method), dodged(array(part["snr"]), names.index(method), len(names)), array(part["rho"]),
                     sheets.both(part["error"]), hover=tuple(f"{n} stars" for n in part["used"]),
                     keys=tuple(sheets.point("simulated", method, at) for at in part["snr"]))  # none else has a floor
              for method, part in rows.groupby("method", sort=False)]
    panel = Panel("S/N per pixel (g)", "ρ = RMSE / Bayes floor", points=tuple(points), x_range=ends, ticks=ticks,
                  bands=(Band(array(ends), np.full(2, 1.0), np.full(2, 1.05), "goal: ρ ≤ 1.05"),),
                  rules=(flat(ends, 1.0),), log_x=True, log_y=log,
                  y_range=sheets.above(np.append(rows["rho"], 1.0)) if log else None)
    return grid([(panel,)], 1, (1.0,), 64)
