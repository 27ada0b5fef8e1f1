"""What is not one LAMOST low-resolution spectrum is refused with the file, the fact and the remedy."""

from __future__ import annotations

import contextlib
import gzip
import os

import numpy as np
import pytest
from astropy.io import fits

from core.data import lamost
from core.data.lamost_layouts import MAX_BYTES
from core.data.lamost_write import LAMOST_WAVE, LAYOUTS, write

N = LAMOST_WAVE.size


@pytest.fixture
def made(tmp_path):
    def make(layout="image", name="star.fits", **changes):
        path = tmp_path / name
        settings = {"flux": np.full(N, 100.0), "ivar": np.full(N, 0.01)} | changes
        write(path, settings.pop("flux"), settings.pop("ivar"), layout, **settings)
        return path

    return make


def refused(path, *words):
    """The path is refused by a ValueError that names it and says all the words; a chain leads to the cause."""
    with pytest.raises(ValueError, match=r".") as caught:
        lamost.read(path)
    for word in words:
        assert word in str(caught.value)
    assert str(path) in str(caught.value)
    return caught.value


def spoil(path, change):
    """Change the arrays of an image file in place."""
    with fits.open(path, mode="update") as opened:
        change(opened[0].data)
    return path


def test_a_good_file_is_not_refused(made):  # the control of all that follow
    for layout in LAYOUTS:
        assert len(lamost.read(made(layout))) == 1


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_a_truncated_gzip_is_refused_by_name(made, keep):
    path = made(name="star.fits.gz")
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    assert refused(path, "cut off", "download it again").__cause__ is not None


def test_a_gzip_with_a_flipped_bit_is_refused(made):
    path = made(name="star.fits.gz")
    data = bytearray(path.read_bytes())
    data[-6] ^= 1  # in the checksum
    path.write_bytes(bytes(data))
    refused(path, "damaged")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("keep", [0.05, 0.5, 0.8])
def test_a_truncated_plain_file_is_refused_by_name(made, layout, keep):
    path = made(layout)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    refused(path)


@pytest.mark.parametrize("data", [b"<html>404</html>", b"\x89PNG\r\n", bytes(5000), b"SIMPLE"])
def test_what_is_not_fits_is_refused(tmp_path, data):
    path = tmp_path / "star.fits"
    path.write_bytes(data)
    assert refused(path, "FITS").__cause__ is not None


def test_an_empty_file_is_refused(tmp_path):
    path = tmp_path / "star.fits"
    path.touch()
    refused(path, "is empty")


def test_a_missing_file_is_refused(tmp_path):
    refused(tmp_path / "star.fits", "No such file", "check its path")


def test_a_folder_given_as_a_file_is_refused(tmp_path):
    (tmp_path / "star").mkdir()
    refused(tmp_path / "star", "is a folder", "read_folder")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_refused(made):
    path = made()
    path.chmod(0)
    refused(path, "Permission denied", "permissions")


def test_a_file_that_the_system_will_not_open_is_refused(made, monkeypatch):
    def closed(self):
        raise PermissionError(13, "Permission denied")

    path = made()
    monkeypatch.setattr(type(path), "read_bytes", closed)
    assert isinstance(refused(path, "Permission denied", "permissions").__cause__, PermissionError)


def test_wrong_hdus_are_refused(tmp_path):
    path = tmp_path / "star.fits"
    fits.PrimaryHDU(np.zeros(3909)).writeto(path)
    refused(path, "shape (3909,)", "5 rows")
    fits.PrimaryHDU().writeto(path, overwrite=True)
    refused(path, "no spectrum", "PRIMARY")
    table = fits.BinTableHDU.from_columns([fits.Column("TEFF", "E", array=np.zeros(3))], name="CATALOGUE")
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path, overwrite=True)
    refused(path, "no spectrum", "CATALOGUE")


def test_a_table_of_another_survey_is_sent_to_specutils(tmp_path):
    path = tmp_path / "star.fits"
    columns = [fits.Column(n, "E", array=np.zeros(3)) for n in ("flux", "loglam", "ivar", "and_mask")]
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns, name="COADD")]).writeto(path)
    refused(path, "ANDMASK", "from_specutils")


def test_many_spectra_in_one_table_are_refused(tmp_path):
    path = tmp_path / "star.fits"
    columns = [fits.Column(n, "5E", array=np.ones((2, 5))) for n in ("FLUX", "WAVELENGTH", "IVAR", "ANDMASK")]
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns)]).writeto(path)
    refused(path, "2 spectra")


@pytest.mark.parametrize("names", [("COADD_B", "COADD_R"), ("B-82493019", "R-82493019"), ("COADD_R",)])
def test_a_medium_resolution_file_is_refused_as_such(tmp_path, names):
    path = tmp_path / "star.fits"
    columns = [fits.Column(n, "5E", array=np.ones((1, 5))) for n in ("FLUX", "WAVELENGTH", "IVAR", "ANDMASK")]
    fits.HDUList([fits.PrimaryHDU(), *(fits.BinTableHDU.from_columns(columns, name=n) for n in names)]).writeto(path)
    refused(path, "medium-resolution (MRS)", "low-resolution (LRS)")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_ivar_zero_is_refused(made, layout):
    refused(made(layout, ivar=np.zeros(N)), "ivar = 0", "leave it out")
    refused(made(layout, andmask=np.ones(N)), "mask in every pixel")


def test_ivar_zero_in_all_that_is_read_is_refused(made):
    ivar = np.zeros(N)
    ivar[:5] = 1  # below 3715 Angstrom
    refused(made(ivar=ivar), "ivar = 0")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_flux_is_refused_when_it_is_most_of_the_spectrum(made, value):
    flux = np.full(N, 100.0)
    flux[: N // 2 - 1] = value
    assert len(lamost.read(made(flux=flux))) == 1  # the control: less than half is masked
    flux[: N // 2 + 1] = value
    refused(made(flux=flux), "not finite (NaN)", f"of {N} measured", "download it again")


def test_negative_ivar_is_refused_with_its_count(made):
    ivar = np.full(N, 0.01)
    ivar[7:10] = -1e-9
    refused(made(ivar=ivar), "negative ivar in 3 pixels")


def test_a_spectrum_without_light_is_refused(made):
    refused(made(flux=np.full(N, -5.0)), "not positive")


def test_wavelengths_that_do_not_rise_are_refused(made):
    def swap(data):
        data[2, [100, 200]] = data[2, [200, 100]]

    def repeat(data):
        data[2, 100] = data[2, 101]

    def hole(data):
        data[2, 100] = np.nan

    for number, change in enumerate((swap, repeat, hole)):
        refused(spoil(made(name=f"star{number}.fits"), change), "do not rise", "sort")


def test_spoiled_wavelengths_are_not_replaced_in_silence(made):
    path = made()
    fits.delval(path, "EXTEN0")  # nothing says now what the third row is, yet the header's COEFF0 would do

    def swap(data):
        data[2, [100, 200]] = data[2, [200, 100]]

    refused(spoil(path, swap), "do not rise")


@pytest.mark.parametrize(("unit", "to"), [("nm", lambda w: w / 10), ("micron", lambda w: w / 1e4),
                                          ("log10", np.log10), ("metre", lambda w: w / 1e10)])
def test_wavelengths_in_other_units_are_refused_with_the_conversion(made, unit, to):
    def change(data):
        data[2] = to(LAMOST_WAVE)

    refused(spoil(made(), change), "look like", unit)


def test_a_pilot_file_without_coefficients_has_no_wavelengths(made):
    path = made("pilot", flux=100 + np.sin(np.arange(N)))
    fits.delval(path, "COEFF0")
    refused(path, "no wavelengths", "COEFF0")


def test_a_huge_file_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "star.fits"
    with path.open("wb") as opened:
        opened.truncate(2 * 2**30)  # 2 GB that take no room

    def never(self):
        raise AssertionError("read")

    monkeypatch.setattr(type(path), "read_bytes", never)
    refused(path, "2048 MB", "64 MB")


def test_a_huge_upload_is_refused():
    with pytest.raises(ValueError, match=r"upload\.fits is 64 MB, above the limit"):
        lamost.read_bytes(bytes(MAX_BYTES + 1), "upload.fits")


def test_a_gzip_bomb_is_refused_without_unpacking_it_all(tmp_path):
    path = tmp_path / "star.fits.gz"
    with gzip.open(path, "wb", compresslevel=1) as opened:
        for _ in range(66):
            opened.write(bytes(2**20))
    assert path.stat().st_size < 2**20
    refused(path, "unpacks to more than 64 MB")


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "README.md").write_text("no spectra")
    (tmp_path / "notes").mkdir()
    with pytest.raises(ValueError, match="holds no FITS file; LAMOST spectra end in .fits"):
        lamost.read_folder(tmp_path)


def test_a_folder_whose_spectra_lie_one_deeper_is_refused_with_their_folder(made, tmp_path):
    for name in ("another", "plate"):
        (tmp_path / name).mkdir()
    made(name="plate/star.fits.gz")
    with pytest.raises(ValueError, match="holds no FITS file itself; its subfolder plate does; name that one"):
        lamost.read_folder(tmp_path)
    assert len(lamost.read_folder(tmp_path / "plate", progress=False)[0]) == 1
    made()  # a file of its own: what is deeper is ignored
    assert len(lamost.read_folder(tmp_path, progress=False)[0]) == 1


def test_a_folder_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="No such file"):
        lamost.read_folder(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="Not a directory"):
        lamost.read_folder(tmp_path / "file")

    def closed(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "iterdir", closed)
    with pytest.raises(ValueError, match="Permission denied"):
        lamost.read_folder(tmp_path)


def test_a_real_observation_holds_no_truth(made):
    with pytest.raises(ValueError, match="holds no truth"):
        lamost.read_truth(made())


def test_random_damage_never_ends_in_anything_but_a_value_error(made, rng):
    for layout in LAYOUTS:
        data = made(layout).read_bytes()
        for _ in range(40):
            damaged = bytearray(data)
            for place in rng.integers(0, 12000, 20):  # headers and first data
                damaged[place] = rng.integers(256)
            with contextlib.suppress(ValueError):
                lamost.read_bytes(bytes(damaged), "star.fits")
