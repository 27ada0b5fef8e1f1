"""Where the exact posterior errs most and does not know it: by temperature and gravity, and star by star."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from scripts.shares import common, share

RESULTS = Path(__file__).resolve().parents[1] / "results"
COOL, GIANT = 4700.0, 3.5  #: Teff [K] below which a star is cool, logg below which it is a giant
_METHODS = ("exact", "mixture")
_WORST = 10
_TIMES = 1.2  # so much larger is worse, so much smaller better


def scores(table: pd.DataFrame) -> pd.DataFrame:
    """A row a simulated star, method and S/N: its true Teff and logg, rms error and claimed width [continuum]."""
    rows = table[(table["sample"] == "simulated") & table["method"].isin(_METHODS)]
    rows = rows.astype({"star": str, "method": str, "quantity": str})
    labels = rows[rows["quantity"].isin(["Teff", "logg"]) & (rows["method"] == "exact")]
    labels = labels.pivot(index="star", columns="quantity", values="truth").rename(columns={"Teff": "teff"})
    pixels = rows[rows["quantity"].isin(["rms", "width"])]
    wide = pixels.pivot(index=["star", "method", "snr"], columns="quantity", values="mean").reset_index()
    return wide.join(labels, on="star", how="inner").astype({"rms": float, "width": float})


def kinds(teff: pd.Series, logg: pd.Series) -> dict[str, pd.Series]:
    """Which stars are of each kind; the first and the last together are all."""
    cool, dwarf = teff < COOL, logg >= GIANT
    return {f"below {COOL:.0f} K": cool, "of these dwarfs": cool & dwarf, "of these giants": cool & ~dwarf,
            "all other stars": ~cool}


def z2(rms: pd.Series, width: pd.Series) -> tuple[float, float]:
    """Summed squared error over summed variance, and its error from resampled stars; 1 + 1 / draws is right."""
    square = np.column_stack([rms, width]).astype(float) ** 2
    if len(square) < 2:
        return float("nan"), float("nan")
    pick = np.random.default_rng(4).integers(len(square), size=(400, len(square)))
    again = square[pick].sum(axis=1)
    return float(np.divide(*square.sum(axis=0))), float((again[:, 0] / again[:, 1]).std())


def by_kind(table: pd.DataFrame) -> pd.DataFrame:
    """A row a method, S/N and kind of simulated star: z2, shares inside 68 % of pixels and EWs, part of all error."""
    told = scores(table)
    known = table[(table["sample"] == "simulated") & table["method"].isin(_METHODS) & table["truth"].notna()]
    known = known.assign(what=known["quantity"].astype(str).str.split(":").str[0], star=known["star"].astype(str))
    known = known[known["what"].isin(["flux", "EW"])]
    out = []
    for (method, snr), part in told.groupby(["method", "snr"]):
        mine = known[(known["method"] == method) & (known["snr"] == snr)]
        for kind, of in kinds(part["teff"], part["logg"]).items():
            some = part[of]
            row = {"method": method, "snr": snr, "kind": kind, "stars": len(some),
                   "of_square_error": (some["rms"] ** 2).sum() / (part["rms"] ** 2).sum()}
            row["z2"], row["z2_err"] = z2(some["rms"], some["width"])
            ranks = mine[mine["star"].isin(some["star"])]
            for name, what in (("pixels", "flux"), ("EW", "EW")):
                row[name], row[f"{name}_err"], row["draws"] = share(ranks[ranks["what"] == what])
            out.append(row)
    return pd.DataFrame(out)


def worst(table: pd.DataFrame, floor: pd.DataFrame) -> pd.DataFrame:
    """The ten simulated stars of largest error of the exact posterior at each S/N; and the first whose floor is known.

    dwarfs, cool: how many of the ten; of_square_error: their part of all squared error; z2: the median of theirs;
    worse, better: more than 1.2 times the mixture's error, or less than it by that. Of the one star: its labels, error,
    claimed width, the mixture's error, the floor and what its chains reached.

    Args:
        floor: of results/floor_stars.parquet.
    """
    told = scores(table)
    mixture = told[told["method"] == "mixture"].set_index("star")["rms"].rename("mixture")
    known = floor[floor["ok"]].set_index("star")[["width:all", "error:all"]] ** 0.5
    known.columns = pd.Index(["floor", "reached"])
    out = []
    for snr, part in told[told["method"] == "exact"].groupby("snr"):
        part = part.join(mixture, on="star")
        top = part.nlargest(_WORST, "rms")
        first = part.join(known, on="star", how="inner").nlargest(1, "rms").iloc[0]
        out.append({"snr": snr, "dwarfs": int((top["logg"] >= GIANT).sum()), "cool": int((top["teff"] < COOL).sum()),
                    "of": len(top), "of_square_error": (top["rms"] ** 2).sum() / (part["rms"] ** 2).sum(),
                    "z2": ((top["rms"] / top["width"]) ** 2).median(),
                    "worse": int((top["rms"] > _TIMES * top["mixture"]).sum()),
                    "better": int((top["rms"] < top["mixture"] / _TIMES).sum()),
                    **first[["star", "teff", "logg", "rms", "width", "mixture", "floor", "reached"]].to_dict()})
    return pd.DataFrame(out)


def by_library(table: pd.DataFrame) -> pd.DataFrame:
    """Shares of held-out real stars inside 68 %, with errors, by library, method and S/N: pixels and EWs."""
    rows = common(table)
    rows = rows[(rows["sample"] == "real") & rows["method"].isin(_METHODS) & rows["truth"].notna()]
    rows = rows.assign(what=rows["quantity"].astype(str).str.split(":").str[0],
                       library=rows["star"].astype(str).str.split("-").str[0])
    out = []
    for (method, library, snr), part in rows.groupby(["method", "library", "snr"], observed=True):
        row = {"method": method, "library": library, "snr": snr, "stars": part["star"].nunique()}
        for name, what in (("pixels", "flux"), ("EW", "EW")):
            row[name], row[f"{name}_err"], row["draws"] = share(part[part["what"] == what])
        out.append(row)
    return pd.DataFrame(out)


def marks(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """exact_kinds.csv and exact_worst.csv, and what of them stands on docs/results.md."""
    kind, top = by_kind(table), worst(table, pd.read_parquet(RESULTS / "floor_stars.parquet"))
    kind.round(4).to_csv(RESULTS / "exact_kinds.csv", index=False)
    top.round(4).to_csv(RESULTS / "exact_worst.csv", index=False)
    library = by_library(table)
    library.round(4).to_csv(RESULTS / "exact_libraries.csv", index=False)
    told = library.assign(inside=[f"{a:.2f}, {b:.2f}" for a, b in zip(library["pixels"], library["EW"], strict=True)])
    told = told.pivot(index=["method", "library", "stars"], columns="snr", values="inside")
    told.columns = pd.Index([f"S/N {at:.0f}" for at in told.columns])
    shown = kind.assign(z2=[f"{a:.2f} +- {b:.2f}" for a, b in zip(kind["z2"], kind["z2_err"], strict=True)],
                        inside=[f"{a:.2f}, {b:.2f}" for a, b in zip(kind["pixels"], kind["EW"], strict=True)])
    wide = {name: shown.pivot_table(index=["method", "kind"], columns="snr", values=name, aggfunc="first", sort=False)
            for name in ("z2", "inside", "stars")}
    for frame in wide.values():
        frame.columns = pd.Index([f"S/N {at:.0f}" for at in frame.columns])
    stars = wide["stars"].loc[["exact"]].rename(index={"exact": "stars"}, level=0)
    numbers = {"teff": 0, "logg": 1, "rms": 4, "width": 4, "mixture": 4, "floor": 4, "reached": 4, "z2": 1,
               "of_square_error": 2}
    return {"exact-kinds": pd.concat([stars, wide["z2"]]).reset_index(),
            "exact-kinds-inside": wide["inside"].reset_index(), "exact-worst": top.round(numbers),
            "exact-libraries": told.reset_index()}
