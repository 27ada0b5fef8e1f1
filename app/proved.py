"""What is proved and what is not, in sentences whose numbers come from the committed tables."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from app import study


def _read(name: str) -> pd.DataFrame:
    return pd.read_csv(Path(study.RESULTS) / name)


def _span(values: pd.Series, form: str = ".0f", factor: float = 100.0) -> str:
    low, high = (f"{factor * v:{form}}" for v in (values.min(), values.max()))
    return low if low == high else f"{low}-{high}"


def _exact(sample: str) -> str:
    rows = _read("exact_coverage.csv").query("sample == @sample and method == 'exact'")
    ratio = _read("exact_ratios.csv").query("sample == @sample and over == 'mixture'")
    whose = {"real": "held-out **real** stars", "simulated": "**simulated** stars"}[sample]
    return (f"**exact**, {whose} ({_span(rows['stars'], factor=1)} at each S/N of {_span(rows['snr'], factor=1)}): its "
            f"68 % intervals hold {_span(rows['EW'])} % of the equivalent widths and {_span(rows['pixels'])} % of the "
            f"pixels; the typical star's rms error is {_span(ratio['rms'], '.2f', 1)} of the mixture's. Of single "
            f"lines they hold {_span(pd.concat([rows['EW_least'], rows['EW_most']]))} %, of velocities "
            f"{_span(rows['RV'])} %, of Teff {_span(rows['Teff'])} %, of [Fe/H] {_span(rows['[Fe/H]'])} %.")


def _wiener() -> str:
    rows = _read("exact_coverage.csv").query("method == 'wiener'").set_index(["sample", "snr"])["EW"]
    shares = {(sample, snr): 100 * float(rows[sample, snr]) for sample in ("simulated", "real") for snr in (5, 100)}
    return ("**Right on simulated stars says nothing about real ones**: Wiener, a Gaussian fitted to the very "
            f"simulator, covers {shares['simulated', 5]:.0f} % (S/N 5) and {shares['simulated', 100]:.0f} % (S/N 100) "
            f"of simulated equivalent widths, and {shares['real', 5]:.0f} % and {shares['real', 100]:.0f} % of "
            "held-out real ones.")


def _pca() -> str:
    card = _read("judge_summary.csv")
    rows = card[(card["sample"] == "real") & (card["method"] == "pca") & (card["quantity"] == "[Fe/H]")]
    return (f"**PCA** looks clean and is off on real stars: [Fe/H] by {rows['median_bias'].abs().min():.2f}-"
            f"{rows['median_bias'].abs().max():.2f} dex (median) at S/N {_span(rows['snr'], factor=1)}.")


def _audit() -> str:
    rows = _read("audit_summary.csv").query("method == 'mixture'")
    return (f"**A prior erases what it does not know.** Of a line of 5-10 sigma that no star has the mixture keeps "
            f"{_span(rows['kept_5_10'])} % (S/N {_span(rows['snr'], factor=1)}; simulated stars), and its flag finds "
            f"{_span(rows['flagged_5_10'])} % of such lines where a matched filter that knows all could find "
            f"{_span(rows['limit_5_10'])} %.")


def _floor() -> str:
    rows = _read("rho.csv").query("quantity == 'spectrum' and method == 'exact'")
    return (f"**Against the Bayes floor** (exact chains on {_span(rows['stars'], factor=1)} simulated stars at each "
            f"S/N): the exact posterior's error is {_span(rows['rho'], '.2f', 1)} times the floor, pooled over stars, "
            f"and for the typical star {_span(rows['median_reached'], '.2f', 1)} times what its chains reached.")


def _cool() -> str:
    """How much more exact errs than it claims, on cool stars and on all others."""
    rows = _read("exact_kinds.csv").query("method == 'exact'")
    cool = rows["kind"].str.startswith("below")
    return (f"**exact does not know where it errs most**: on simulated stars {rows.loc[cool, 'kind'].iloc[0]} its "
            f"squared error is {_span(rows.loc[cool, 'z2'], '.1f', 1)} times what it claims, on all others "
            f"{_span(rows.loc[rows['kind'] == 'all other stars', 'z2'], '.1f', 1)} times (S/N "
            f"{_span(rows['snr'], factor=1)}).")


def _dps() -> str:
    rows = _read("exact_coverage.csv").query("sample == 'simulated' and method == 'dps'")
    return (f"**DPS** ({_span(rows['stars'], factor=1)} simulated stars, S/N {_span(rows['snr'], factor=1)}): its 68 % "
            f"hold {_span(rows['EW'])} % of the equivalent widths and {_span(rows['RV'])} % of the velocities. "
            "It was not asked about real stars.")


_SENTENCES: tuple[Callable[[], str], ...] = (
    partial(_exact, "real"), partial(_exact, "simulated"), _cool, _wiener, _pca, _audit, _floor, _dps)


def proved() -> list[str]:
    """Sentences with their numbers; one whose table is not there, or lacks what it wants, is left out."""
    out = []
    for sentence in _SENTENCES:
        try:
            said = sentence()
        except (OSError, ValueError, KeyError, pd.errors.UndefinedVariableError):
            continue
        if "nan" not in said:
            out.append(said)
    return out


def reality_gap() -> pd.DataFrame:
    """rms error and pixels inside 68 % of held-out real stars by prior and S/N, as texts.

    Raises:
        ValueError: results/reality_gap.csv is not there.
    """
    try:
        rows = _read("reality_gap.csv").query("noise == 'white' and group == 'in domain'")
    except OSError as error:
        raise ValueError("results/reality_gap.csv is not there; make it by `python -m scripts.evaluate reality`, or "
                         "take it from the repository.") from error
    said = [f"{r.rms:.4f} ± {r.rms_err:.4f}, {100 * r.pixel_coverage:.0f} %" for r in rows.itertuples()]
    wide = rows.assign(said=said).pivot(index="prior", columns="snr", values="said")
    order = [name for name in ("synthetic", "physics", "real", "both") if name in wide.index]
    wide = wide.loc[order].fillna("")
    wide.columns = [f"S/N {snr:g}" for snr in wide.columns]
    return wide.assign(stars=int(np.max(rows["stars"]))).reset_index()
