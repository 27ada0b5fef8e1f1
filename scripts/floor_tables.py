"""The floor's tables from its finished stars: the floor with its bounds and calibration, and rho of what was judged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import kstest

from core.figures.against_floor import squared_errors
from core.metrics.floor import rho
from core.spectrum import Array
from scripts.pages import DOCS, fill, with_error

RESULTS = Path(__file__).resolve().parents[1] / "results"
_MISFIT, _UNFIT, _BELOW, _STUCK = 4.0, 2.0, 25.0, 0.03
_UNITS = {"all": "continuum", "lines": "continuum", "Teff": "K", "RV": "km/s"}
_METHODS = ("exact", "mixture", "wiener")


def read(log: Path) -> pd.DataFrame:
    """Finished stars, one row each; `ok` is False where the walkers from the data alone found no posterior.

    That is so where what they found does not fit the data, where the quadratic never came to fit the spectra, or where
    it lies e^25 below the truth, which the truth alone can tell: such stars are counted, and in no average.
    """
    stars = pd.DataFrame([json.loads(line) for line in log.read_text().splitlines()])
    known = stars["failed"].isna() if "failed" in stars else pd.Series(True, index=stars.index)
    fine = (stars["misfit"] < _MISFIT) & (stars["fit"] < _UNFIT) & (stars["height"] < _BELOW)
    return stars.assign(ok=known & fine, stuck=stars["taken_told"] < _STUCK)


def _again(top: Array, bottom: Array | None, root: bool = False, rounds: int = 1000) -> float:
    """Bootstrap error, over stars, of sqrt(mean top) or of mean top / mean bottom, or of that ratio's root."""
    if len(top) < 2:
        return float("nan")
    pick = np.random.default_rng(1).integers(len(top), size=(rounds, len(top)))
    mean = top[pick].mean(axis=1)
    ratio = mean if bottom is None else mean / bottom[pick].mean(axis=1)
    return float((np.sqrt(ratio) if root or bottom is None else ratio).std(ddof=1))


def _ranks(rank: pd.Series | None) -> dict[str, float]:
    """Share of truths inside the 68 % of the walkers, and the p-value of uniform ranks (Kolmogorov-Smirnov)."""
    if rank is None or not rank.notna().any():
        return {"inside": float("nan"), "rank_p": float("nan")}
    known = rank.dropna().to_numpy(float)
    return {"inside": float(((known > 0.1587) & (known < 0.8413)).mean()),
            "rank_p": float(kstest(known, "uniform").pvalue)}


def _known(part: pd.DataFrame, name: str) -> dict[str, float]:
    """The floor of who is told the curve too (colours and level), its lower bound, and `upper` of those same stars."""
    told = part[part.get(f"known:{name}", pd.Series(np.nan, index=part.index)).notna()]
    if not len(told):
        return {}
    return {"told_stars": len(told), "told_lower": np.sqrt(told[f"known:{name}"].mean()),
            "told_floor": np.sqrt(told[f"known_width:{name}"].mean()),
            "told_z2": told[f"known_error:{name}"].mean() / told[f"known_width:{name}"].mean(),
            "upper_same": np.sqrt(told[f"error:{name}"].mean())}


def floor_table(stars: pd.DataFrame) -> pd.DataFrame:
    """A row an S/N and quantity: the floor (root of the mean posterior variance), between its bounds.

    lower: root of the mean variance of walkers that started at the truth, at most the floor in expectation whatever
    their mixing; lower_moved: without the stars whose walkers never left it. upper: root mean square error of the mean
    of walkers from the data alone, at least the floor whatever their mixing. z2: upper^2 / floor^2, 1 + 1 / ess where
    the intervals are right. told_*: the same of walkers that are told the curve of the data (colours and level), whose
    floor lies below every method's; upper_same: upper of the stars that were asked both ways.
    """
    out = []
    for at, rows in stars.groupby("snr"):
        fine = rows[rows["ok"]]
        for name in [c.removeprefix("width:") for c in stars.columns if c.startswith("width:")]:
            part = fine[fine[f"width:{name}"].notna() & fine[f"error:{name}"].notna()]
            width, error, lower = (part[f"{k}:{name}"].to_numpy(float) for k in ("width", "error", "lower"))
            moved = ~part["stuck"].to_numpy(bool)
            if not len(part):
                continue
            out.append({
                "snr": at, "quantity": {"all": "spectrum", "lines": "line windows"}.get(name, name),
                "unit": "Angstrom" if name.startswith("EW") else _UNITS.get(name, "dex"), "stars": len(part),
                "failed": int((~rows["ok"]).sum()), "stuck": int((~moved).sum()),
                "floor": np.sqrt(width.mean()), "floor_err": _again(width, None),
                "median_star": np.sqrt(np.median(width)), "lower": np.sqrt(lower.mean()),
                "lower_moved": np.sqrt(lower[moved].mean()) if moved.any() else np.nan,
                "floor_moved": np.sqrt(width[moved].mean()) if moved.any() else np.nan,
                **_known(part, name), "upper": np.sqrt(error.mean()),
                "upper_err": _again(error, None), "z2": error.mean() / width.mean(),
                "z2_err": _again(error, width), "z2_mean": (error / width).mean(),
                "z2_mean_err": (error / width).std(ddof=1) / np.sqrt(len(part)) if len(part) > 1 else np.nan,
                "ess": part["ess"].median(), **_ranks(part.get(f"rank:{name}")),
            })
    return pd.DataFrame(out)


def _middle(name: str, ratio: pd.Series) -> dict[str, float]:
    """Root of the median star's ratio of squared errors, and its error from resampled stars."""
    values = ratio.to_numpy(float)
    pick = np.random.default_rng(2).integers(len(values), size=(1000, len(values)))
    return {name: float(np.sqrt(np.median(values))),
            f"{name}_err": float(np.sqrt(np.median(values[pick], axis=1)).std(ddof=1))}


def rho_table(stars: pd.DataFrame, judged: pd.DataFrame) -> pd.DataFrame:
    """A row an S/N, method and quantity: rms error over the floor's, star by star of the same stars.

    rho, and all that follows from it, is that of the posterior mean: what the few draws behind the judge's mean add
    (std^2 / draws, of the method's own width) is taken off; rho_raw is as judged. rho_low stands on the upper bound, an
    error really reached from the same data (less what so few walkers add): the true rho is above it. rho_high stands on
    the lower bound, of who is told the curve as well: the true rho is below it. without_worst leaves the star of the
    largest error out, whose share of the mean square is worst_share. median_star: root of the median of the squared
    error over the star's floor, which is not 1 for who reaches the floor, for errors scatter about their variance:
    median_chains is that of the floor's own chains from the data, and median_reached the method's error over theirs.
    rho_err is that of resampled stars; floor_err what so few walkers leave unknown of the floor, at most, times rho.
    RV is left out: the judge's truth is the velocity
    measured on the true spectrum, the floor's is the star's.
    """
    rng, out = np.random.default_rng(1), []
    fine = stars[stars["ok"]].set_index("star")
    names = [c.removeprefix("width:") for c in stars.columns if c.startswith("width:")]
    for (method, quantity), rows in judged.groupby(["method", "quantity"]):
        name = "all" if quantity == "rms" else quantity
        if name not in names or name == "RV":
            continue
        rows = rows.set_index("star")
        both = rows.index.intersection(fine.index)
        table = rows.loc[both].join(fine[["ess", *(f"{k}:{name}" for k in ("width", "error"))]])
        table = table.assign(known=fine.get(f"known:{name}", pd.Series(np.nan, index=fine.index)).reindex(table.index))
        for at, part in table.groupby("snr"):
            part = part[part[f"width:{name}"].notna() & part["mse"].notna()]
            if len(part) < 3:
                continue
            own = (part["mse"] - part["extra"]).clip(lower=0.0)
            width, reached = part[f"width:{name}"], part[f"error:{name}"] / (1 + 1 / part["ess"])
            got = rho(np.sqrt(own), np.sqrt(width), np.ones(len(part), bool), rng)
            told = part[part["known"].notna()]
            rest = own.index != own.idxmax()
            out.append({
                "snr": at, "method": method, "quantity": "spectrum" if name == "all" else name, "stars": got.used,
                "rho": got.value, "rho_err": got.error, "rho_raw": np.sqrt(part["mse"].mean() / width.mean()),
                "rho_low": np.sqrt(own.mean() / reached.mean()),
                "rho_low_err": _again(own.to_numpy(), reached.to_numpy(), root=True),
                "told_stars": len(told),
                "rho_high": np.sqrt(own[told.index].mean() / told["known"].mean()) if len(told) else np.nan,
                "without_worst": np.sqrt(own[rest].mean() / width[rest].mean()),
                "worst_share": own.max() / own.sum(),
                "median_star": np.sqrt((own / width).median()),
                **_middle("median_reached", own / reached), **_middle("median_chains", reached / width),
                "floor_err": 0.5 * got.value * np.sqrt((width**2 * 2 / part["ess"]).sum()) / width.sum(),
            })
    return pd.DataFrame(out)


def judged(file: Path) -> pd.DataFrame:
    """Squared errors of the simulated stars of a judge's table, as `core.figures.against_floor.squared_errors`."""
    asked = [("sample", "==", "simulated"), ("method", "in", list(_METHODS))]
    return squared_errors(pd.read_parquet(file, filters=asked))


def tables(work: Path, results: Path) -> None:
    """Write floor_stars.parquet, floor.csv, floor_control.csv where a control was run, and rho.csv."""
    stars = read(work / "stars.jsonl")
    if (work / "colours.jsonl").exists():
        told = read(work / "colours.jsonl")
        told = told[told["ok"]].set_index("star")
        more = {f"{new}:{c.split(':', 1)[1]}": told[c] for c in told for old, new in
                (("lower", "known"), ("width", "known_width"), ("error", "known_error")) if c.startswith(old + ":")}
        stars = stars.join(pd.DataFrame(more), on="star")
    stars.to_parquet(results / "floor_stars.parquet", compression="zstd")
    floor_table(stars).to_csv(results / "floor.csv", index=False, float_format="%.4g")
    # that a wrong sigma does not even fit the data is left aside here: the intervals themselves must be found narrow
    controls = [floor_table(read(log).assign(ok=lambda x: x["fit"] < _UNFIT))
                .assign(understated=float(log.stem.removeprefix("control-"))) for log in work.glob("control-*.jsonl")]
    if controls:
        together = pd.concat(controls, ignore_index=True)
        together.to_csv(results / "floor_control.csv", index=False, float_format="%.4g")
    rhos(results)


def rhos(results: Path = RESULTS) -> None:
    """rho.csv and its table in docs/judge.md, from the committed floor and what is judged now."""
    stars = pd.read_parquet(results / "floor_stars.parquet")
    rho_all = rho_table(stars, judged(results / "judge.parquet"))
    rho_all.to_csv(results / "rho.csv", index=False, float_format="%.4g")
    fill(DOCS / "judge.md", {"rho": short(rho_all)})


def short(table: pd.DataFrame) -> pd.DataFrame:
    """The page's rho, a row a method and S/N: of whole spectra, and of equivalent widths (least, middle, most line)."""
    key = ["method", "snr"]
    whole = table[table["quantity"] == "spectrum"].set_index(key)
    lines = table[table["quantity"].str.startswith("EW:")].groupby(key)["rho"]
    ew = [f"{low:.2f} {middle:.2f} {high:.2f}" for low, middle, high in
          zip(lines.min(), lines.median(), lines.max(), strict=True)]
    out = pd.DataFrame({
        "stars": whole["stars"], "typical star": whole["median_star"].round(2),
        "the chains'": whole["median_chains"].round(2),
        "typical star over what is reached": with_error(whole, "median_reached"),
        "spectrum": with_error(whole.assign(rho_err=np.hypot(whole["rho_err"], whole["floor_err"])), "rho"),
        "without the worst star": whole["without_worst"].round(2),
        "its share": whole["worst_share"].astype(float).round(2),
        "over what is reached": with_error(whole, "rho_low")})
    return out.join(pd.Series(ew, index=lines.min().index, name="EW")).reset_index()
