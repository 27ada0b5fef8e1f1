"""What is exported: the same bytes from script and page, vectors with fonts, everything whole and accounted for."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import streamlit as st
from astropy.io import fits
from astropy.table import Table
from matplotlib.text import Text

from app import export, resources
from app.shown import Look
from app.state import Choice
from core import products
from core.bundle import Bundle
from core.figures import paper
from core.figures.sheets import Panel, Points, grid
from core.metrics.planted import ByHand, plant
from core.request import Asked, Request, file_words
from core.spectrum import Samples
from scripts import export as script

ROOT = Path(__file__).resolve().parent.parent
STAR, DRAWS = "simulated:SIM12", 3
LINE = ByHand(6300.0, 12.0, "sigma", 6.0)
CHOICE = Choice(STAR, 9.0, ("wavelet", "mixture"), 4)


@pytest.fixture(scope="module")
def look(tmp_path_factory: pytest.TempPathFactory) -> Look:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRUELINE_WORKER", "0")
        patch.setenv("TRUELINE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(resources, "DRAWS", {"other": DRAWS})
        st.cache_resource.clear()
        star = resources.catalogue().stars[STAR]
        plain = resources.look(star, CHOICE.snr, CHOICE.methods, CHOICE.seed)
        put = plant(plain.spectra, LINE).spectra
        found = resources.look(star, CHOICE.snr, CHOICE.methods, CHOICE.seed, spectra=put)
        st.cache_resource.clear()
    assert [a.method for a in found.answers] == list(CHOICE.methods)
    return found


@pytest.fixture(scope="module")
def shown(look: Look) -> Bundle:
    return export.bundle_of(look, CHOICE, "MNRAS", LINE)


@pytest.fixture(scope="module")
def packed(shown: Bundle) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(shown.zipped("2026-11-30"))) as found:
        assert found.testzip() is None
        return {name: found.read(name) for name in found.namelist()}


# ------------------------------------------------------------------------------------------- script and page


def test_the_command_that_the_page_tells_gives_the_same_bytes_in_a_fresh_process(
        packed: dict[str, bytes], tmp_path: Path) -> None:
    command = shlex.split(json.loads(packed["provenance.json"])["command"])
    assert command[:3] == ["python", "-m", "scripts.export"]
    done = subprocess.run([sys.executable, *command[1:], "--out", str(tmp_path / "star.zip")], cwd=ROOT,
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tmp_path / "star.zip") as theirs:
        assert sorted(packed) == sorted(theirs.namelist())
        differ = [name for name in packed if theirs.read(name) != packed[name] and name != "provenance.json"]
        assert not differ
        told = json.loads(theirs.read("provenance.json"))
    ours = json.loads(packed["provenance.json"])
    for one in (told, ours):  # when, and by which link
        one["made"] = one["request"]["url"] = ""
    assert told == ours


def test_another_seed_gives_other_bytes(shown: Bundle, look: Look) -> None:
    other = look.answers[1].drawn + 1e-3
    mixture = Samples(look.spectra.wave, other[:, None], "mixture")
    moved = Bundle(shown.request, shown.own, shown.spectra, (shown.answers[0], mixture), shown.truth)
    assert moved.figure("lines", "pdf") != shown.figure("lines", "pdf")
    assert shown.figure("lines", "pdf") == shown.figure("lines", "pdf")


def test_a_figure_alone_is_that_of_the_zip(packed: dict[str, bytes], shown: Bundle, look: Look) -> None:
    got = export.figure(look, CHOICE, "MNRAS", LINE, "spectrum", "pdf", 2)
    assert got == packed["figures/spectrum.pdf"]
    assert export.figure(look, CHOICE, "MNRAS", LINE, "spectrum", "pdf", 1) != got


# ------------------------------------------------------------------------------------------- what a journal wants


def images(pdf: bytes) -> int:
    return len(re.findall(rb"/Subtype\s*/Image", pdf))


def test_figures_are_vectors_with_their_fonts_embedded(packed: dict[str, bytes]) -> None:
    for name in ("spectrum", "lines"):
        pdf, svg = packed[f"figures/{name}.pdf"], packed[f"figures/{name}.svg"]
        assert images(pdf) == 0
        assert b"/FontFile2" in pdf
        assert b"/Type3" not in pdf
        assert b"<image" not in svg
        assert b"CreationDate" not in pdf
        assert packed[f"figures/{name}.png"].startswith(b"\x89PNG")
        width = float(re.search(rb"/MediaBox \[\s*0 0 ([\d.]+)", pdf)[1])  # type: ignore[index]
        assert abs(width / 72 * 25.4 - 178.5) < 0.1, "two columns of MNRAS"


def test_a_dense_cloud_would_be_seen_as_an_image(rng: np.random.Generator) -> None:
    x = rng.random(2 * paper.DENSE)
    cloud = Points("mixture", x, x, line=False, cloud=True)
    assert images(paper.encoded(grid([(Panel(points=(cloud,)),)], 1, (1.0,), 60), "pdf", "AAS")) > 0


@pytest.mark.parametrize("name", ["spectrum", "lines"])
def test_type_has_6_to_8_points(shown: Bundle, name: str) -> None:
    drawn = paper.draw(shown.sheet(name))
    sizes = {text.get_fontsize() for text in drawn.findobj(Text) if text.get_text()}
    assert sizes
    assert min(sizes) >= 6
    assert max(sizes) <= 8


# ------------------------------------------------------------------------------------------- the whole star


def test_the_zip_is_whole_and_others_can_read_it(packed: dict[str, bytes], look: Look) -> None:
    figures = {f"figures/{name}.{kind}" for name in ("spectrum", "lines") for kind in ("pdf", "svg", "png")}
    assert set(packed) == figures | {"README.txt", "provenance.json", "spectrum.ecsv", "spectrum.fits", "lines.ecsv",
                                     "flags.ecsv"}
    with fits.open(io.BytesIO(packed["spectrum.fits"])) as units:
        assert np.array_equal(units["DRAWS_MIXTURE"].data, look.answers[1].drawn.astype(np.float32))
        assert "DRAWS_WAVELET" not in units, "a filter has no draws"
        assert np.allclose(units["SPECTRUM"].data["mixture"], look.answers[1].flux, atol=1e-6)
    table = Table.read(packed["lines.ecsv"].decode(), format="ascii.ecsv")
    assert set(table["method"]) == {"wavelet", "mixture"}
    assert len(Table.read(packed["spectrum.ecsv"].decode(), format="ascii.ecsv")) == len(look.spectra.wave)
    assert "python -m scripts.export" in packed["README.txt"].decode()


def test_only_the_date_changes_from_day_to_day(shown: Bundle) -> None:
    today, later = shown.provenance("2026-11-30"), shown.provenance("2027-01-01")
    assert today != later
    assert today | {"made": ""} == later | {"made": ""}


def test_provenance_names_every_checkpoint_by_its_hash_and_how_it_was_asked(packed: dict[str, bytes]) -> None:
    told = json.loads(packed["provenance.json"])
    files = sorted((ROOT / "checkpoints").glob("*.safetensors"))
    assert told["checkpoints"] == {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    assert len(files) > 10
    assert told["made"] == "2026-11-30"
    request = told["request"]
    assert (request["seed"], request["snr"], request["line"]) == (4, 9.0, LINE.text)
    assert [asked["method"] for asked in request["asked"]] == ["wavelet", "mixture"]
    assert request["asked"][1]["draws"] == DRAWS
    assert "star=simulated%3ASIM12" in request["url"]
    assert {"trueline", "torch", "numpy", "matplotlib"} <= set(told["versions"])
    assert str(ROOT) not in packed["provenance.json"].decode(), "where a server keeps its files is its own affair"


# ------------------------------------------------------------------------------------------- commands


def test_a_request_in_words_is_the_request() -> None:
    asked = Asked("dps", 8, {"strength": 0.03, "steps": 50})
    assert Asked.parse(asked.text) == asked
    assert isinstance(Asked.parse(asked.text).settings["steps"], int), "as the page asks: the same answer"
    told = Request("a star.fits", None, (asked,), 3, air=True).command
    assert shlex.split(told)[3] == "a star.fits"
    assert "--air" in told
    assert "--snr" not in told


def test_a_file_outside_is_named_without_its_folder(tmp_path: Path) -> None:
    assert file_words(str(tmp_path / "mine.fits")) == "mine.fits"
    assert file_words(str(ROOT / "core/data/stars/sim-12.fits.gz")) == "core/data/stars/sim-12.fits.gz"


@pytest.mark.parametrize(("words", "said"), [
    (["nothing.fits"], "nothing.fits"), (["x", "--out", "x.doc"], "rename it"), (["x", "--out", "other.pdf"], "rename"),
    (["core/data/stars/sim-12.fits.gz", "--ask", "exat"], "did you mean"),
    (["core/data/stars/sim-12.fits.gz", "--ask", "savgol", "--line", "1"], "WAVELENGTH"),
    (["core/data/stars/sim-12.fits.gz", "--ask", "savgol,3"], "give it like that"),
])
def test_a_command_that_makes_no_sense_is_refused(
        words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as left:
        script.main(words)
    assert left.value.code == 2
    assert said in capsys.readouterr().err


def test_no_figure_of_another_name(shown: Bundle) -> None:
    with pytest.raises(ValueError, match="ask for spectrum or lines"):
        shown.figure("portrait", "pdf")
    assert products.checkpoints()
