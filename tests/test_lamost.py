"""LAMOST files of every layout come in as they were measured."""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from core.data import grid, lamost
from core.data.lamost_write import LAMOST_WAVE, LAYOUTS, write

HEADER = {"OBSID": "101001", "DESIG": "LAMOST J220848.54-020324.3", "DATA_V": "LAMOST DR10", "RA": 332.2, "DEC": -2.05,
          "SNRU": 1.5, "SNRG": 12.25, "SNRR": 27.0, "SNRI": 36.0, "SNRZ": 21.0, "CLASS": "STAR", "SUBCLASS": "G7",
          "Z": -1e-4, "LMJD": 55859, "PLANID": "F5902", "SPID": 1, "FIBERID": 7, "VERSPIPE": "v2.9.8"}
LABELS = {"teff": 5800.0, "logg": 4.4, "feh": 0.0, "alpha_fe": 0.1, "rv": 12.5}


def star() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noisy flux, ivar and clean flux of a made-up star on LAMOST's grid, in counts; the same each time."""
    rng = np.random.default_rng(5)
    slope = 500 * (LAMOST_WAVE / 5000) ** -1.5
    clean = slope * (1 - 0.5 * np.exp(-(((LAMOST_WAVE - 6564.6) / 8) ** 2)))
    sigma = 0.03 * slope
    return clean + sigma * rng.standard_normal(clean.size), 1 / sigma**2, clean


@pytest.fixture
def made(tmp_path):
    flux, ivar, clean = star()

    def make(layout: str = "image", name: str | None = None, **changes) -> Path:
        path = tmp_path / (name or f"{layout}.fits.gz")
        settings = {"header": HEADER, "labels": LABELS, "truth": clean} | changes
        write(path, settings.pop("flux", flux), settings.pop("ivar", ivar), layout, **settings)
        return path

    return make


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("suffix", [".fits", ".fits.gz"])
def test_every_layout_gives_the_same_spectrum_plain_or_gzipped(made, layout, suffix):
    flux, ivar, _ = star()
    # the content decides, so the name lies
    got = lamost.read(made(layout, name=f"spec-dr7-image{suffix}"))
    assert got.meta.layout[0] == layout
    inside = slice(18, 18 + grid.N_PIXELS)  # the grid starts 18 pixels into LAMOST's
    expected = flux.astype(np.float32)[inside]
    np.testing.assert_allclose(got.flux[0] * got.continuum[0], expected, rtol=1e-12)
    np.testing.assert_allclose(got.ivar[0] / got.continuum[0] ** 2, ivar.astype(np.float32)[inside], rtol=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_header_becomes_meta(made, layout):
    row = lamost.read(made(layout)).meta.iloc[0]
    pilot = layout == "pilot"
    assert row.star == ("55859-F5902-01-007" if pilot else "101001")
    assert row.obsid == ("" if pilot else "101001")
    assert row.release == ("pilot" if pilot else "DR10")
    assert row.designation == "J220848.54-020324.3"
    assert (row.ra, row.dec, row.snr_u, row.snr_g, row.snr_z) == (332.2, -2.05, 1.5, 12.25, 21.0)
    assert (row["class"], row.subclass, row.z) == ("STAR", "G7", -1e-4)


def test_a_simulated_file_says_so_and_brings_its_labels_and_its_truth(made):
    path = made("coadd")
    with fits.open(path) as opened:
        header = opened[0].header
    assert header["ORIGIN"] == "TRUELINE"
    assert "not an observation" in str(header["COMMENT"])
    got = lamost.read(path)
    assert got.meta.origin[0] == "simulated"
    assert {k: got.meta[k][0] for k in LABELS} == LABELS
    residual = (got.flux[0] - lamost.read_truth(path)) * np.sqrt(got.ivar[0])
    # rms of 3840 unit normals is 1 to 1.1 % (one sigma); the control is the flux itself, which is no truth
    assert abs(residual.std() - 1) < 5 / np.sqrt(2 * grid.N_PIXELS)
    assert abs(((got.flux[0] - 1) * np.sqrt(got.ivar[0])).std() - 1) > 5 / np.sqrt(2 * grid.N_PIXELS)
    np.testing.assert_array_equal(lamost.read_truth(path.read_bytes(), "upload.fits.gz"), lamost.read_truth(path))


def test_an_observation_with_label_cards_stays_an_observation(made):
    path = made("image", name="a.fits")
    fits.setval(path, "ORIGIN", value="NAOC-LAMOST")
    row = lamost.read(path).meta.iloc[0]
    assert row.origin == "observed"
    assert "teff" not in row
    assert row.rv == pytest.approx(-29.979, abs=1e-3)


def test_writing_twice_gives_the_same_bytes(made):
    assert made(name="a.fits.gz").read_bytes() == made(name="b.fits.gz").read_bytes()


def test_an_upload_reads_like_the_file(made):
    path = made("table")
    upload, file = lamost.read_bytes(path.read_bytes(), "upload.fits.gz"), lamost.read(path)
    np.testing.assert_array_equal(upload.flux, file.flux)
    assert upload.meta.file[0] == "upload.fits.gz"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bad_pixels_become_ivar_zero_and_nothing_else_does(made, layout):
    flux, ivar, _ = star()
    andmask, ormask = np.zeros(flux.size), np.zeros(flux.size)
    flux[100], flux[101] = np.nan, np.inf
    ivar[102], ivar[103], ivar[104] = 0, np.nan, np.inf
    andmask[105], ormask[106] = 4, 4
    got = lamost.read(made(layout, flux=flux, ivar=ivar, andmask=andmask, ormask=ormask))
    assert list(np.flatnonzero(~got.measured[0]) + 18) == [100, 101, 102, 103, 104, 105]


def test_loglam_and_rows_per_pixel_read_like_wavelengths(made, tmp_path):
    with fits.open(made("table")) as opened:
        data, header = opened[1].data, opened[0].header
        columns = [fits.Column("LOGLAM" if n == "WAVELENGTH" else n.lower(), "D",
                               array=np.log10(data[n]) if n == "WAVELENGTH" else data[n]) for n in data.names]
        path = tmp_path / "loglam.fits"
        fits.HDUList([fits.PrimaryHDU(header=header), fits.BinTableHDU.from_columns(columns)]).writeto(path)
    np.testing.assert_allclose(lamost.read(path).flux, lamost.read(made("table")).flux, rtol=1e-9)


@pytest.mark.parametrize("rows", [3, 4])
def test_an_early_image_of_three_or_four_rows_is_read(made, rows, tmp_path):
    with fits.open(made("image")) as opened:
        path = tmp_path / "early.fits"
        fits.PrimaryHDU(opened[0].data[:rows], header=opened[0].header).writeto(path)
    np.testing.assert_array_equal(lamost.read(path).flux, lamost.read(made("image")).flux)


def test_the_pilot_layout_is_known_by_its_third_row_not_by_its_header(made, tmp_path):
    for layout in ("pilot", "image"):
        path = made(layout, name=f"{layout}.fits")
        fits.delval(path, "EXTEN0")
        assert lamost.read(path).meta.layout[0] == layout


def test_air_wavelengths_are_brought_to_vacuum(made):
    path = made("image", name="air.fits")
    fits.setval(path, "VACUUM", value=False)
    wave, *_ = lamost.parse(path)
    np.testing.assert_allclose(grid.vacuum_to_air(wave), LAMOST_WAVE, rtol=1e-7)
    assert lamost.parse(made("image"))[0][0] == pytest.approx(LAMOST_WAVE[0], rel=1e-7)


def test_missing_cards_and_minus_9999_are_not_numbers(made):
    row = lamost.read(made("image", header={"Z": -9999.0, "SNRG": -9999.0}, labels={})).meta.iloc[0]
    assert np.isnan([row.z, row.rv, row.snr_g, row.ra]).all()
    assert row.star == "image.fits.gz"


def test_a_folder_reads_on_past_bad_files_in_the_order_of_names(made, tmp_path):
    for name in ("c.fits", "a.fits.gz", "b.fits"):
        made("coadd", name=name, header={**HEADER, "OBSID": name[0]})
    (tmp_path / "b.fits").write_bytes(b"<html>not here</html>")
    (tmp_path / "index.csv").write_text("ignored")
    spectra, refused = lamost.read_folder(tmp_path, progress=False)
    assert list(spectra.meta.star) == ["a", "c"]
    assert list(refused.columns) == ["file", "reason"]
    assert [Path(f).name for f in refused.file] == ["b.fits"]
    assert "not a FITS file" in refused.reason[0]
    alone, _ = lamost.read_folder(tmp_path, workers=1, progress=False)
    np.testing.assert_array_equal(alone.flux, spectra.flux)


def test_a_folder_of_bad_files_only_gives_no_rows_and_every_reason(tmp_path):
    (tmp_path / "a.fits").write_bytes(b"")
    spectra, refused = lamost.read_folder(tmp_path, progress=False)
    assert (len(spectra), len(refused)) == (0, 1)


def test_reading_leaves_warning_filters_as_they_were(made, tmp_path):
    made()
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        lamost.read_folder(tmp_path, progress=False)
    assert not heard
    assert list(warnings.filters) == before


def test_the_writer_refuses_to_pass_as_lamost(made):
    with pytest.raises(ValueError, match="ORIGIN"):
        made(header={"ORIGIN": "NAOC-LAMOST"})
    with pytest.raises(ValueError, match="layout 'mrs' is unknown"):
        made("mrs")
    with pytest.raises(ValueError, match="mass"):
        made(labels={"mass": 1.0})
    with pytest.raises(ValueError, match="one length"):
        made(ivar=np.ones(10))


def test_the_reader_knows_no_torch():
    code = "import sys, core.data.lamost; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_all_real_files_are_read_in_ten_seconds(shared):
    start = time.perf_counter()
    spectra, refused = lamost.read_folder(shared / "lamost", progress=False)
    assert time.perf_counter() - start < 10
    assert refused.empty
    assert len(spectra) == 135
    assert spectra.meta.star.is_unique
    assert spectra.meta.layout.value_counts().to_dict() == {"pilot": 132, "image": 2, "coadd": 1}
    assert set(spectra.meta.release) == {"pilot", "DR6", "DR7", "DR9"}
    assert (spectra.meta.origin == "observed").all()
    np.testing.assert_allclose(np.median(spectra.flux, axis=1), 1, atol=0.25)


def test_real_pilot_pixels_are_the_file_s_own_not_interpolated(shared):
    path = shared / "lamost" / "spec-55862-B6212_sp06-005.fits.gz"
    with fits.open(path) as opened:
        raw = opened[0].data.astype(float)
    got = lamost.read(path)
    np.testing.assert_allclose(got.flux[0, got.measured[0]] * got.continuum[0, got.measured[0]],
                               raw[0, 18:18 + grid.N_PIXELS][got.measured[0]], rtol=1e-12)
    assert (got.measured[0] == ((raw[1] > 0) & (raw[3] == 0))[18:18 + grid.N_PIXELS]).all()
