"""The study's tables on docs/study.md, from results/study*.csv."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from scripts.judge_pages import _missed
from scripts.pages import DOCS, fill

RESULTS = Path(__file__).resolve().parents[1] / "results"
PAGE = DOCS / "study.md"


def pm(frame: pd.DataFrame, name: str, digits: int = 2, factor: float = 1.0) -> list[str]:
    """A column and its error as text, "-" where there is none."""
    pairs = zip(factor * frame[name], factor * frame[f"{name}_err"], strict=True)
    return ["-" if pd.isna(v) else f"{v:.{digits}f}" if pd.isna(e) else f"{v:.{digits}f} +- {e:.{digits}f}"
            for v, e in pairs]


def error_table(errors: pd.DataFrame) -> pd.DataFrame:
    """MSE, its ratios to Wiener, PCA and DnCNN, and SSIM."""
    return pd.DataFrame({"S/N": errors["snr"].astype(int), "method": errors["method"], "stars": errors["stars"],
                         "MSE [1e-4]": pm(errors, "mse", 2, 1e4), "over Wiener": pm(errors, "over_wiener"),
                         "over PCA": pm(errors, "over_pca"), "over DnCNN": pm(errors, "over_dncnn"),
                         "SSIM": errors["ssim"].map("{:.3f}".format)})


def bias_table(bias: pd.DataFrame) -> pd.DataFrame:
    """Biases of lines, velocity and labels, and the slope of [Fe/H]."""
    return pd.DataFrame({"S/N": bias["snr"].astype(int), "method": bias["method"], "stars": bias["stars"],
                         "EW bias [%]": (100 * bias["EW_bias"]).map("{:.1f}".format), "RV [km/s]": pm(bias, "RV", 1),
                         "Teff [K]": pm(bias, "Teff", 0), "slope": pm(bias, "Teff_slope"), "logg": pm(bias, "logg"),
                         "slope ": pm(bias, "logg_slope"), "[Fe/H]": pm(bias, "[Fe/H]"),
                         "slope  ": pm(bias, "[Fe/H]_slope")})


def coverage_table(cover: pd.DataFrame) -> pd.DataFrame:
    """Shares inside 68 %; "x" where the seed's 60-75 % is missed, "." where 66-70 % is."""
    out = {"S/N": cover["snr"].astype(int), "method": cover["method"], "stars": cover["stars"], "draws": cover["draws"]}
    for what in ("pixels", "EW", "RV", "Teff", "logg", "[Fe/H]"):
        shown = pm(cover, what)
        out[what] = [text if text == "-" else text + _missed(v) for text, v in zip(shown, cover[what], strict=True)]
    return pd.DataFrame(out | {"z2": cover["z2"].map("{:.2f}".format)})


def audit_table(audit: pd.DataFrame) -> pd.DataFrame:
    """What is kept of lines no star has, and painted back of lines taken out."""
    return pd.DataFrame({"S/N": audit["snr"].astype(int), "method": audit["method"], "stars": audit["stars"],
                         "kept, 5-10 sigma": pm(audit, "kept_5_10"), "kept, 10-20 sigma": pm(audit, "kept_10_20"),
                         "lines": audit["kept_10_20_lines"], "painted back": pm(audit, "painted"),
                         "false lines": pm(audit, "false_lines"), "lines ": audit["painted_lines"]})


def maps_table(maps: pd.DataFrame) -> pd.DataFrame:
    """Errors under noise maps, where they were changed."""
    return pd.DataFrame({"map": maps["map"], "method": maps["method"], "stars": maps["stars"],
                         "MSE there [1e-4]": (1e4 * maps["mse"]).map("{:.2f}".format),
                         "over Wiener": pm(maps, "over_wiener"), "over supervised": pm(maps, "over_supervised"),
                         "inside": maps["inside"].map(lambda v: "-" if pd.isna(v) else f"{v:.2f}"),
                         "warnings": maps["warned"]})


def learning_table(points: pd.DataFrame) -> pd.DataFrame:
    """Error over Wiener's against spectra seen."""
    return pd.DataFrame({"method": points["method"], "S/N": points["snr"].astype(int), "spectra seen": points["seen"],
                         "MSE [1e-4]": pm(points, "mse", 2, 1e4), "over Wiener": pm(points, "over_wiener")})


#: mark on the page -> results/study_<first>.csv, the sample where it holds several, and what makes the table
PARTS = {"errors": ("errors", "simulated", error_table), "errors-real": ("errors", "real", error_table),
         "bias": ("bias", "simulated", bias_table), "coverage": ("coverage", "simulated", coverage_table),
         "coverage-real": ("coverage", "real", coverage_table), "audit": ("audit", None, audit_table),
         "maps": ("maps", None, maps_table), "learning": ("learning", None, learning_table)}


def parts() -> dict[str, pd.DataFrame]:
    """Every table of the page whose results are there and which the page has a mark for."""
    out = {}
    text = PAGE.read_text()
    for mark, (name, sample, make) in PARTS.items():
        file = RESULTS / f"study_{name}.csv"
        if not file.exists() or f"<!-- {mark} -->" not in text:
            continue
        table = pd.read_csv(file)
        table = table if sample is None else table[table["sample"] == sample].reset_index(drop=True)
        if len(table):
            out[mark] = make(table)
    return out


def pages() -> None:
    """Fill docs/study.md."""
    fill(PAGE, parts())
