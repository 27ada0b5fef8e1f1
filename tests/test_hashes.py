"""A file that ships is refused for one changed byte; a file of one's own, elsewhere, is not asked for a hash."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from core.data import hashes, sky
from core.data.hashes import FOLDER, LIST, digest, record, recorded, verified
from core.data.noise import NoiseModel
from core.data.reality import Reality
from core.models.estimators import LabelEstimator, MLPLabels, RidgeLabels
from core.models.gaussian import GaussianPrior
from core.models.mixture import Mixture
from core.models.mixture_labels import MixtureLabels
from scripts.prepare import listed

LOADERS: dict[str, Callable[[Path], object]] = {
    "gaussian.safetensors": GaussianPrior.load, "labels.safetensors": MixtureLabels.load,
    "mixture.safetensors": Mixture.load, "mixture.json": lambda path: Mixture.load(path.with_suffix(".safetensors")),
    "mlp.safetensors": MLPLabels.load, "noise.safetensors": NoiseModel.load, "reality.safetensors": Reality.load,
    "ridge.safetensors": RidgeLabels.load, "sky.safetensors": sky.patterns,
}  # fmt: skip


def test_every_file_that_ships_is_the_one_that_a_list_or_its_card_names():
    assert recorded() == {file.name: digest(file) for file in listed()}
    assert set(recorded()) == set(LOADERS)
    rest = {f.name for f in FOLDER.glob("*.safetensors")} - set(recorded())
    assert {"library.safetensors", "emulator.safetensors", "denoiser.safetensors"} <= rest
    for name in rest:
        card = json.loads((FOLDER / name).with_suffix(".json").read_text())
        assert card["sha256"] == digest(FOLDER / name)


def changed(path: Path) -> None:
    """The last byte, which is a number's or a closing line's: the file still reads."""
    content = bytearray(path.read_bytes())
    content[-1] = ord(" ") if path.suffix == ".json" else content[-1] ^ 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("name", LOADERS)
def test_one_changed_byte_is_refused_with_the_remedy_where_the_file_is_listed(name, tmp_path):
    path = tmp_path / "checkpoints" / name
    path.parent.mkdir()
    for file in {FOLDER / name, (FOLDER / name).with_suffix(".safetensors"), FOLDER / LIST}:
        shutil.copy(file, path.parent)
    if name.startswith("mixture"):
        shutil.copy(FOLDER / "mixture.json", path.parent)
    LOADERS[name](path)  # the control: as it ships
    for method in (GaussianPrior.load, MixtureLabels.load, sky.patterns):
        getattr(method, "cache_clear")()  # noqa: B009 mypy knows no cache of a classmethod
    changed(path)
    with pytest.raises(ValueError, match=rf"{name} has SHA-256 .* take both .*git checkout checkpoints.*prepare"):
        LOADERS[name](path)
    (path.parent / LIST).unlink()  # somebody's own file
    assert LOADERS[name](path) is not None


def test_a_file_that_the_list_does_not_name_or_that_is_missing_is_let_through(tmp_path):
    (tmp_path / LIST).write_text("{}")
    (tmp_path / "mine").write_text("1")
    assert verified(tmp_path / "mine") == tmp_path / "mine"
    (tmp_path / LIST).write_text(json.dumps({"mine": "0" * 64, "gone": "0" * 64}))
    assert verified(tmp_path / "gone") == tmp_path / "gone"
    with pytest.raises(ValueError, match="mine has SHA-256"):
        verified(tmp_path / "mine")
    (tmp_path / LIST).write_text("[]")
    with pytest.raises(ValueError, match="cannot be read"):
        verified(tmp_path / "mine")


def test_what_is_saved_is_recorded_beside_a_list_and_nowhere_else(tmp_path, monkeypatch):
    rows = sky.patterns()
    sky.save(rows, tmp_path / "sky.safetensors")
    assert not (tmp_path / LIST).exists()
    monkeypatch.setattr(hashes, "FOLDER", tmp_path.resolve())  # where the list itself was lost
    sky.save(rows, tmp_path / "sky.safetensors")
    estimator = LabelEstimator.load(FOLDER / "ridge.safetensors")
    estimator.save(tmp_path / "ridge.safetensors")
    assert recorded(tmp_path) == {n: digest(tmp_path / n) for n in ("ridge.safetensors", "sky.safetensors")}
    sky.save(rows / 2, tmp_path / "sky.safetensors")  # made anew: the list goes with it
    np.testing.assert_allclose(sky.patterns(tmp_path / "sky.safetensors"), rows / 2, rtol=1e-3, atol=1e-6)
    before = (tmp_path / LIST).read_text()
    (tmp_path / "x").write_text("1")
    record(tmp_path / "x")
    assert json.loads((tmp_path / LIST).read_text()) == json.loads(before) | {"x": digest(tmp_path / "x")}
    assert not list(tmp_path.glob("*.part"))
