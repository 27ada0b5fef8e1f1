"""What the judge found of stars whose Bayes floor is known, as the figure of rho wants it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from core.figures.rows import need

_KEY = ["star", "method", "snr"]


def squared_errors(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each star, method and quantity: squared error, and what the few draws behind its mean add to it.

    Args:
        rows: of the tidy table of simulated stars: columns star, method, quantity, snr, truth, mean, std, n; those of a
            whole spectrum are its scores rms and width.

    Returns:
        star, method, snr, quantity ('rms': the whole spectrum), mse, extra: std^2 / draws, in the unit squared.

    Raises:
        ValueError: columns missing, no rows.
    """
    need(rows, [*_KEY, "quantity", "truth", "mean", "std", "n"])
    rows = rows.astype({"star": str, "method": str, "quantity": str, "snr": float})
    pixels = rows[rows["quantity"].isin(["rms", "width"])].pivot(index=_KEY, columns="quantity", values="mean")
    pixels = pixels.join(rows.groupby(_KEY)["n"].max().rename("draws"))
    pixels = pixels.assign(mse=pixels["rms"] ** 2, extra=pixels["width"] ** 2 / pixels["draws"], quantity="rms")
    rest = rows[rows["truth"].notna() & rows["n"].gt(1)]
    rest = rest.assign(mse=(rest["mean"] - rest["truth"]) ** 2, extra=rest["std"] ** 2 / rest["n"])
    keep = [*_KEY, "quantity", "mse", "extra"]
    return pd.concat([pixels.reset_index()[keep], rest[keep]], ignore_index=True)


def against_floor(stars: pd.DataFrame, errors: pd.DataFrame) -> pd.DataFrame:
    """What `core.figures.compose.rho_curve` draws: each star's floor of the whole spectrum, and each method's rms.

    Args:
        stars: of results/floor_stars.parquet: columns star, snr, ok, 'width:all' (variance); errors: of
            `squared_errors`.

    Returns:
        star, snr, ok, rms_floor, and 'rms:<method>', NaN where a method was not asked [continuum].
    """
    need(stars, ["star", "snr", "ok", "width:all"], "floor table")
    out = stars[["star", "snr", "ok"]].assign(rms_floor=np.sqrt(stars["width:all"]))
    whole = errors[errors["quantity"] == "rms"]
    own = whole.assign(rms=np.sqrt((whole["mse"] - whole["extra"]).clip(lower=0.0)))
    wide = own.pivot(index=["star", "snr"], columns="method", values="rms").add_prefix("rms:")
    return out.merge(wide.reset_index(), on=["star", "snr"], how="left")
