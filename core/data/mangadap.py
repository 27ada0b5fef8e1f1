"""Real stars (MILES, STELIB, MaStar) out of the package sdss_mangadap 4.5.0, with the rows of ../shared/stars."""

from __future__ import annotations

import gzip
import re
import warnings
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from core.spectrum import Array

Arrays = dict[str, npt.NDArray[Any]]
_REMEDY = "fetch it with `pip download sdss_mangadap==4.5.0 --no-deps` and name the wheel"
_TEMPLATES = "data/spectral_templates"
#: library: its folder and its files' names, whose group is the star's name
_FILES = {"miles": ("miles", r"MILES_res2\.50_star_m(\d{4})V\.fits"),
          "stelib": ("stelib", r"STELIB_v3\.2_(\w+)\.fits"),
          "mastar": ("mastarhc_v2", r"MaStarHC_(\d+)\.fits\.gz")}
#: In the package, but not in ../shared/stars, which leaves a quarter out (no rule is known, hence the lists): never
#: read, so that what is fitted here has seen the same stars, and STELIB's rows count the same.
_LEFT_OUT = {name: frozenset(text.split()) for name, text in {
    "miles": """
        1 3 12 21 22 23 27 29 30 34 35 39 45 46 47 52 58 65 67 70 72 75 85 88 92 93 103 108 109 111 112 120 121 123
        125 126 131 134 141 143 147 151 158 159 165 172 173 174 177 180 181 184 188 194 201 202 210 220 225 237 241
        248 249 251 252 262 264 265 268 278 280 281 284 290 299 301 304 314 315 317 319 322 324 332 338 353 360 370
        379 383 387 391 407 409 412 413 414 415 419 423 424 428 431 437 438 447 455 463 464 465 469 471 472 477 481
        482 489 490 495 498 500 501 519 521 524 533 539 543 554 555 556 563 567 568 571 575 578 579 582 588 596 598
        601 603 606 614 616 621 623 627 628 638 644 648 653 655 656 665 668 670 676 678 681 685 692 694 705 719 720
        726 730 731 735 743 744 746 747 749 756 764 766 771 773 781 783 790 795 798 804 805 809 811 817 818 822 824
        830 831 832 833 839 843 844 845 850 851 852 855 862 864 865 866 867 868 883 887 891 899 900 902 903 908 909
        912 913 915 922 923 926 928 931 933 935 941 949 950 953 954 957 963 969 974 976 981 982 983""",
    "stelib": """
        G319 HD012479 HD018191 HD021581 HD029574 HD030739 HD032537 HD034816 HD036512 HD037680 HD038282 HD039801
        HD039866 HD041593 HD042454 HD042543 HD047129 HD048682B HD049933 HD052973 HD061064 HD072324 HD078316 HD078418
        HD080081 HD086728 HD087696 HD089025 HD089254 HD090839 HD092769 HD094247 HD098262 HD100006 HD101606 HD102212
        HD106038 HD107213 HD108177 HD109995 HD110897 HD113022 HD113848 HD117176 HD122408 HD124570 HD127665 HD134169
        HD146051 HD147547 HD148513 HD150275 HD155646 HD156283 HD157373 HD161817 HD163506 HD166620 HD168151 HD176437
        HD185657 HD188209 HD268623""",
    "mastar": """
        6 13 16 29 38 42 43 45 56 57 66 70 71 74 77 99""",
}.items()}


def _folder(path: Path) -> Path | None:
    """The templates' folder below an installed package, or below the site-packages it lies in; None where neither."""
    places = (path / _TEMPLATES, path / "mangadap" / _TEMPLATES)
    return next((p for p in places if p.is_dir()), None)


def is_package(path: Path) -> bool:
    """Whether `path` is to be read by read_package: any file (the wheel), or a folder that holds the templates."""
    return path.is_file() or _folder(path) is not None


def _stars(root: Path | zipfile.Path, library: str) -> list[tuple[str, list[Array], fits.Header]]:
    """Of each star that is not left out, in order of its name: name, the data of its HDUs, the first HDU's header."""
    folder, pattern = _FILES[library]
    place = root / folder
    found = [(m[1], p) for p in (place.iterdir() if place.is_dir() else ()) if (m := re.fullmatch(pattern, p.name))]
    out = []
    for name, file in sorted(found, key=lambda pair: pair[0]):
        if (str(int(name)) if name.isdigit() else name) in _LEFT_OUT[library]:
            continue
        raw = file.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", fits.verify.VerifyWarning)  # APNUM1 of STELIB is not standard
            with fits.open(BytesIO(gzip.decompress(raw) if file.name.endswith(".gz") else raw)) as hdus:
                out.append((name, [np.array(h.data, dtype=float) for h in hdus], hdus[0].header.copy()))
    if not out:
        raise FileNotFoundError(f"no file of {folder}/")
    return out


def _wave(header: fits.Header) -> Array:
    """The header's evenly spaced axis, (NAXIS1,)."""
    return float(header["CRVAL1"]) + float(header["CDELT1"]) * np.arange(int(header["NAXIS1"]), dtype=np.float64)


def _miles(root: Path | zipfile.Path) -> Arrays:
    """A star lacking one label has none, as in miles.npz; the table's `022.` is no number and is passed over."""
    stars = _stars(root, "miles")
    table = (line.split() for line in (root / "miles" / "MILES_params.db").read_text().splitlines())
    known = {int(row[0]): [float(x) for x in row[1:4]] for row in table if row and row[0].isdigit()}
    labels = np.array([known.get(int(name), [np.nan] * 3) for name, _, _ in stars])
    labels[(labels > [9e4, 9e3, 9e3]).any(axis=1)] = np.nan  # 99999, 9999, 9999 stand for unknown
    # noise took some fluxes below zero
    return {"wave_air": _wave(stars[0][2]), "flux": np.maximum([data[0] for _, data, _ in stars], 0.0),
            "star": np.array([int(name) for name, _, _ in stars]), "labels": labels.astype(np.float32)}


def _stelib(root: Path | zipfile.Path) -> Arrays:
    stars = _stars(root, "stelib")
    heads = [header for _, _, header in stars]
    values = [[h.get(key) for key in ("TEFF", "LOG_G", "FE_H")] for h in heads]  # `-` is unknown
    labels = np.array([[v if isinstance(v, (int, float)) else np.nan for v in row] for row in values], np.float32)
    return {"flux": np.array([data[0] for _, data, _ in stars]), "labels": labels,
            "wave0_air": np.array([float(h["CRVAL1"]) for h in heads]),
            "dwave": np.array([float(h["CDELT1"]) for h in heads]),
            "star": np.array([h["OBJECT"].strip() for h in heads]),
            "spectral_type": np.array([h["SPECTYPE"].strip() for h in heads])}


def _mastar(root: Path | zipfile.Path) -> Arrays:
    stars = _stars(root, "mastar")
    flux, ivar, resolution = (np.array([data[k] for _, data, _ in stars]) for k in range(3))
    return {"loglam_vac": _wave(stars[0][2]), "flux": flux, "ivar": ivar, "resolution": resolution,
            "template": np.array([int(name) for name, _, _ in stars])}


def read_package(path: Path) -> dict[str, Arrays]:
    """The arrays of ../shared/stars from the package, the fluxes not rounded: keys "miles", "stelib", "mastar".

    Args:
        path: the wheel (a zip), or the folder that the package was installed in (site-packages/mangadap).

    Returns:
        miles: wave_air (L,) [Angstrom, air], flux (n, L) per Angstrom on an arbitrary scale, star (n,) number,
        labels (n, 3) teff [K], logg, feh, NaN where unknown. stelib: flux (n, L) at wave0_air + dwave * j [Angstrom,
        air], wave0_air (n,), dwave (n,), star (n,), spectral_type (n,), labels (n, 3); 0 is not measured; a star's
        number is its row. mastar: loglam_vac (L,) log10 of Angstrom in vacuum, flux, ivar, resolution (n, L),
        template (n,) number; the package knows no labels of these averages.

    Raises:
        ValueError: `path` is no such package, or lacks a library; says how to fetch it.
    """
    try:
        if path.is_file():
            with zipfile.ZipFile(path) as wheel:
                root = zipfile.Path(wheel, f"mangadap/{_TEMPLATES}/")
                return {"miles": _miles(root), "stelib": _stelib(root), "mastar": _mastar(root)}
        folder = _folder(path)
        if folder is None:
            raise FileNotFoundError(f"no folder {_TEMPLATES}")
        return {"miles": _miles(folder), "stelib": _stelib(folder), "mastar": _mastar(folder)}
    except (OSError, KeyError, IndexError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not the package sdss_mangadap 4.5.0 ({error}); {_REMEDY}.") from error
