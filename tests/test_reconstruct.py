"""Stars without a browser: whole, resumable, the page's numbers; a bad file costs only itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from astropy.table import Table

from app import resources
from core import batch, pipeline, products, report
from core.data import lamost, library, noise
from scripts import reconstruct

STAR = library.BUNDLED / "sim-03.fits.gz"
ORDER = batch.Order(("savgol", "mixture"), draws=6, seed=3, snr=12.0, keep_draws=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One star's folder, made by the command line beside a file that is none."""
    out = tmp_path_factory.mktemp("out")
    bad = out / "broken.fits"
    bad.write_bytes(b"not a star")
    status = reconstruct.main([str(STAR), str(bad), "--method", "savgol,mixture", "--draws", "6", "--seed", "3",
                               "--snr", "12", "--keep-draws", "--out", str(out)])
    assert status == 1, "a refused file is told by the exit status too"
    return out / "sim-03"


def read(file: Path) -> pd.DataFrame:
    return Table.read(file, format="ascii.ecsv").to_pandas()


def test_a_bad_file_costs_one_line_of_the_report(made) -> None:
    told = pd.read_csv(made.parent / "report.csv", keep_default_na=False).set_index("state")
    assert "broken.fits" in told.loc["refused", "reason"]
    assert told.loc["made", "star"] == "SIM03"
    assert sorted(p.name for p in made.iterdir()) == ["flags.ecsv", "labels.ecsv", "lines.ecsv", "provenance.json",
                                                      "spectrum.fits"]
    assert not list(made.parent.glob(".*.part"))


def test_the_scripts_numbers_are_the_pages(made, monkeypatch) -> None:
    monkeypatch.setattr(resources, "DRAWS", {"other": 6})
    star = next(s for s in resources.catalogue().stars.values() if s.facts["star"] == "SIM03")
    look = resources.look(star, 12.0, ["savgol", "mixture"], 3)
    from app import labels_shown, lines_shown
    for name, page in (("lines", lines_shown.lines(look)), ("labels", labels_shown.labels(look)[1].table)):
        script = read(made / f"{name}.ecsv")
        keys = [c for c in ("method", "line", "quantity") if c in script]
        both = page.merge(script, on=keys, suffixes=("_page", "_script"))
        assert len(both) == len(page) == len(script)
        for column in ("value", "minus", "plus", "reference", "residual"):
            np.testing.assert_allclose(both[f"{column}_page"].astype(float), both[f"{column}_script"].astype(float),
                                       rtol=1e-12)
    spectrum = Table.read(made / "spectrum.fits", hdu="SPECTRUM")
    np.testing.assert_allclose(spectrum["mixture"], look.answers[-1].flux, rtol=1e-6)
    other = lines_shown.lines(resources.look(star, 12.0, ["savgol", "mixture"], 4))  # control: another seed
    assert np.abs(other["value"].to_numpy() - lines_shown.lines(look)["value"].to_numpy()).max() > 0


def test_the_fits_file_holds_quantiles_draws_units_and_where_it_comes_from(made) -> None:
    with fits.open(made / "spectrum.fits", checksum=True) as file:
        assert file[0].header["STAR"] == "SIM03"
        assert file[0].header["SEED"] == 3
        drawn = file["DRAWS_MIXTURE"].data
        assert "DRAWS_SAVGOL" not in file, "a filter has no draws"
    table = Table.read(made / "spectrum.fits", hdu="SPECTRUM")
    assert str(table["wavelength"].unit) == "Angstrom"
    assert "savgol_q16" not in table.columns
    np.testing.assert_allclose(np.quantile(drawn, products.QUANTILES["q16"], axis=0), table["mixture_q16"], atol=1e-5)
    spectra = noise.degrade(lamost.read(STAR), 12.0, 3)
    np.testing.assert_allclose(drawn, pipeline.reconstruct(spectra, "mixture", 6, 3).draws[:, 0], atol=1e-6)
    np.testing.assert_array_equal(np.isnan(np.asarray(table["flux"])), ~spectra.measured[0])
    told = json.loads((made / batch.DONE).read_text())
    assert told["order"]["seed"] == 3
    assert set(told["checkpoints"]) >= {"mixture.safetensors", "ridge.safetensors"}
    assert told["versions"]["torch"]
    assert told["domain"]["inside"] is True


def test_finished_stars_are_kept_and_a_new_question_makes_them_anew(made, monkeypatch) -> None:
    job, = batch.jobs([STAR], made.parent)
    monkeypatch.setattr(batch, "contents", lambda *_: pytest.fail("a finished star is made again"))
    before = (made / "lines.ecsv").stat().st_mtime_ns
    assert batch.work(job, ORDER).state == batch.KEPT
    assert (made / "lines.ecsv").stat().st_mtime_ns == before
    asked = []
    monkeypatch.setattr(batch, "contents", lambda *a: asked.append(a) or (_ for _ in ()).throw(ValueError("stopped")))
    other = batch.Order(("savgol", "mixture"), draws=6, seed=4, snr=12.0, keep_draws=True)
    assert batch.work(job, other).state == batch.REFUSED
    assert asked, "another seed is another question"
    assert (made / batch.DONE).is_file(), "what was whole stays until the new is"


def test_a_star_that_was_cut_short_is_made_again(tmp_path, monkeypatch) -> None:
    job, = batch.jobs([STAR], tmp_path)
    order = batch.Order(("savgol",), draws=1)
    write = products.write
    monkeypatch.setattr(products, "write", lambda path, content: (_ for _ in ()).throw(OSError("disk full"))
                        if path.name == "spectrum.fits" else write(path, content))
    with pytest.raises(OSError, match="disk full"):
        batch.work(job, order)
    assert not job.folder.exists()
    monkeypatch.setattr(products, "write", write)
    assert batch.work(job, order).state == batch.MADE
    assert batch.work(job, order).state == batch.KEPT


def test_parts_of_a_cluster_share_the_files_without_a_gap_or_a_clash(tmp_path) -> None:
    files = [tmp_path / f"{folder}/{name}.fits.gz" for folder in "ab" for name in ("one", "two", "three")]
    whole = batch.jobs(files, tmp_path)
    assert len({job.folder for job in whole}) == len(files)
    parts = [whole[i::4] for i in range(4)]
    assert sorted(j.file for part in parts for j in part) == sorted(files)
    seen = []
    monkey = batch.run(whole, ORDER, lambda work, todo: seen.append(list(todo)) or [])
    assert list(monkey.columns) == list(batch.COLUMNS)
    assert seen == [whole]


@pytest.mark.parametrize("wrong", [
    ["--method", "exakt"], ["--draws", "0"], ["--part", "5/4"], ["--set", "dps.strength"], ["--set", "dps.steps=x()"],
    ["--set", "mixture.unit_spread=0.2"], ["--method", "savgol", "--set", "savgol.colour=3"], ["--snr", "nan"],
    ["--seed", "-1"], ["--method", ","]])
def test_a_command_that_makes_no_sense_is_refused_before_any_work(wrong, tmp_path, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        reconstruct.main([str(STAR), "--out", str(tmp_path / "out"), *wrong])
    assert end.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()[-1]) > 30
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_and_a_missing_file_are_said(tmp_path, capsys) -> None:
    with pytest.raises(SystemExit):
        reconstruct.main([str(tmp_path), "--out", str(tmp_path / "out")])
    assert "holds no FITS file" in capsys.readouterr().err
    assert reconstruct.main([str(tmp_path / "no.fits"), "--method", "savgol", "--out", str(tmp_path / "out")]) == 1
    assert "no.fits" in capsys.readouterr().err


def test_a_method_that_fails_is_named_and_the_others_stay(tmp_path, monkeypatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("its draws ran away")

    real = pipeline.reconstruct
    monkeypatch.setattr(pipeline, "reconstruct", lambda spectra, method, *more, **settings: (
        broken if method == "wavelet" else real)(spectra, method, *more, **settings))
    _, star, failed = batch.contents(STAR, batch.Order(("savgol", "wavelet"), draws=1))
    assert star == "SIM03"
    assert failed == ["wavelet: its draws ran away"]
    with pytest.raises(ValueError, match="ran away"):
        batch.contents(STAR, batch.Order(("wavelet",), draws=1))


def test_a_point_estimate_alone_still_has_labels_in_closed_form() -> None:
    files, _, _ = batch.contents(STAR, batch.Order(("savgol",), draws=1))
    assert report.CLOSED in str(files["labels.ecsv"])
