"""The package sdss_mangadap gives the stars of ../shared/stars, told apart by the same numbers."""

from __future__ import annotations

import gzip
import os
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from core.data.mangadap import is_package, read_package
from core.data.real_stars import read

ROOT = Path(__file__).resolve().parent.parent


def fits_bytes(cards: dict[str, object], *arrays: np.ndarray) -> bytes:
    hdus = fits.HDUList([fits.PrimaryHDU(arrays[0]), *(fits.ImageHDU(a) for a in arrays[1:])])
    hdus[0].header.update(cards)
    buffer = BytesIO()
    hdus.writeto(buffer)
    return buffer.getvalue()


def contents() -> dict[str, bytes]:
    """Files of the package's layout: of each library two stars to read, one that ../shared/stars leaves out."""
    table = "#MILES Teff logg [Fe/H]\n 0002 4167 0.95 -2.46\n 022. 7950 3.95 0.35\n 0004 99999 9999 9999\n"
    out = {"miles/MILES_params.db": table.encode()}
    for k in (4, 3, 2):
        data = np.array([k, 2.5, -1.0, 4.0])
        out[f"miles/MILES_res2.50_star_m{k:04d}V.fits"] = fits_bytes({"CRVAL1": 3540.5, "CDELT1": 0.9}, data)
    for name, teff in (("HD006268", 4712), ("G319", 6000), ("Feige110", "-")):
        cards = {"CRVAL1": 3199.5, "CDELT1": 1.001, "OBJECT": f"{name} ", "SPECTYPE": "G0 ", "TEFF": teff,
                 "LOG_G": 1.13, "FE_H": "-"}
        out[f"stelib/STELIB_v3.2_{name}.fits"] = fits_bytes(cards, np.array([0, 1e-13, 2e-13], dtype=np.float32))
    for k in (98, 6, 0):
        cards = {"CRVAL1": 3.5601, "CDELT1": 1e-4}
        raw = fits_bytes(cards, np.full(5, k / 10), np.full(5, 100.0 + k), np.full(5, 1800.0))
        out[f"mastarhc_v2/MaStarHC_{k:02d}.fits.gz"] = gzip.compress(raw)
    return {f"mangadap/data/spectral_templates/{name}": data for name, data in out.items()}


def write_wheel(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as wheel:
        for name, data in files.items():
            wheel.writestr(name, data)
    return path


@pytest.fixture(params=["wheel", "mangadap", "site-packages"])
def package(request, tmp_path) -> Path:
    if request.param == "wheel":
        return write_wheel(tmp_path / "small.whl", contents())
    for name, data in contents().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path / "mangadap" if request.param == "mangadap" else tmp_path


def test_a_small_package_reads_right(package):
    assert is_package(package)
    got = read_package(package)
    miles, stelib, mastar = got["miles"], got["stelib"], got["mastar"]
    assert miles["star"].tolist() == [2, 4]  # 3 is left out, as in ../shared/stars
    np.testing.assert_allclose(miles["wave_air"], [3540.5, 3541.4, 3542.3, 3543.2])
    np.testing.assert_array_equal(miles["flux"], [[2, 2.5, 0, 4], [4, 2.5, 0, 4]])
    np.testing.assert_allclose(miles["labels"], [[4167, 0.95, -2.46], [np.nan] * 3], rtol=1e-6)
    assert stelib["star"].tolist() == ["Feige110", "HD006268"]  # G319 is left out
    assert stelib["spectral_type"].tolist() == ["G0", "G0"]
    np.testing.assert_allclose(stelib["labels"], [[np.nan, 1.13, np.nan], [4712, 1.13, np.nan]], rtol=1e-6)
    np.testing.assert_allclose(stelib["flux"], [[0, 1e-13, 2e-13]] * 2, rtol=1e-6)
    assert stelib["wave0_air"].tolist() == [3199.5] * 2
    assert stelib["dwave"].tolist() == [1.001] * 2
    assert mastar["template"].tolist() == [0, 98]  # 6 is left out
    np.testing.assert_allclose(mastar["loglam_vac"], 3.5601 + 1e-4 * np.arange(5))
    np.testing.assert_array_equal(mastar["flux"], np.array([[0.0], [9.8]]) * np.ones(5))
    np.testing.assert_array_equal(mastar["ivar"][:, 0], [100.0, 198.0])
    assert (mastar["resolution"] == 1800).all()


@pytest.mark.parametrize("reader", [read_package, read])
def test_a_file_that_is_no_package_is_refused(reader, tmp_path):
    text = tmp_path / "notes.whl"
    text.write_text("no zip")
    other = write_wheel(tmp_path / "other.whl", {"other/__init__.py": b""})
    for path in (text, other):
        with pytest.raises(ValueError, match="is not the package .*pip download sdss_mangadap==4.5.0 --no-deps"):
            reader(path)


def test_a_folder_that_is_no_package_or_lacks_a_library_is_refused(tmp_path):
    assert not is_package(tmp_path)
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ValueError, match="is not the package .*pip download"):
            read_package(path)
    short = write_wheel(tmp_path / "short.whl", {k: v for k, v in contents().items() if "stelib" not in k})
    with pytest.raises(ValueError, match="no file of stelib/"):
        read_package(short)


@pytest.fixture(scope="module")
def both() -> tuple[Path, Path]:
    """The wheel, and the folder of the npz files."""
    wheel = Path(os.environ.get("TRUELINE_MANGADAP", "absent"))
    folder = Path(os.environ.get("TRUELINE_SHARED", ROOT.parent / "shared")) / "stars"
    if not is_package(wheel):
        pytest.skip("needs the package sdss_mangadap 4.5.0, and TRUELINE_MANGADAP names no such wheel or folder")
    if not (folder / "miles.npz").exists():
        pytest.skip(f"needs real stars in {folder}, which are not here")
    return wheel, folder


def test_the_package_s_arrays_equal_those_of_shared_to_their_quantisation(both):
    wheel, folder = both
    got = read_package(wheel)
    for name, file in (("miles", "miles.npz"), ("stelib", "stelib.npz"), ("mastar", "mastar_hc.npz")):
        with np.load(folder / file) as archive:
            kept = {k: archive[k] for k in archive.files}
        for key in ("star", "template", "spectral_type", "labels"):
            if key in kept:
                np.testing.assert_array_equal(got[name][key], kept[key])
        for key in ("wave_air", "wave0_air", "dwave", "loglam_vac"):
            if key in kept:
                np.testing.assert_allclose(got[name][key], kept[key], rtol=1e-12)
        if "flux_u16" in kept:  # steps of scale; scale itself is float32
            steps = np.abs(got[name]["flux"] / kept["flux_scale"].astype(float) - kept["flux_u16"])
            assert steps.max() < 0.52
        else:
            for key in ("flux", "ivar", "resolution"):
                np.testing.assert_allclose(got[name][key], kept[key], rtol=1e-6, atol=1e-6)
