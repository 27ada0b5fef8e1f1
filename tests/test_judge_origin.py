"""Each piece of the judge's table tells where it comes from, and pieces that do not belong together are refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from test_contract import QUICK

from core import networks
from core.pipeline import METHODS
from scripts import evaluate_judge, judge_origin
from scripts.judge_origin import NOT_RECORDED, ROOT, UNKNOWN, commit, record
from scripts.judge_stars import SEED, simulated


@pytest.fixture(scope="module")
def asked():
    return simulated(20.0, 3)


@pytest.fixture
def folder(asked, tmp_path, monkeypatch):
    """Two methods' pieces, one of each, and an empty folder of results."""
    (tmp_path / "pieces").mkdir()
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(evaluate_judge, "RESULTS", tmp_path / "results")
    keys = ["method", "sample", "snr"]
    monkeypatch.setattr(evaluate_judge, "card", lambda table: table.groupby(keys)["star"].size().reset_index())
    for piece in evaluate_judge.plan([asked], ["noisy", "savgol"], 4, tmp_path / "pieces"):
        evaluate_judge._job(piece)
    return tmp_path / "pieces"


def told(folder):
    return json.loads((folder.parent / "results" / "judge.json").read_text())["runs"]


def again(folder, method, **change):
    """A second piece of a method, with another origin."""
    old = folder / f"simulated-all-20-{method}-0.table"
    for suffix in (".table", ".failed"):
        shutil.copy(old.with_suffix(suffix), folder / f"simulated-1-30-{method}-0{suffix}")
    origin = json.loads(old.with_suffix(".json").read_text()) | change
    (folder / f"simulated-1-30-{method}-0.json").write_text(json.dumps(origin))


def test_a_piece_tells_its_origin_and_the_table_gets_it_per_method(folder):
    origin = json.loads((folder / "simulated-all-20-savgol-0.json").read_text())
    assert origin["seed"] == SEED
    assert origin["draws"] == 4
    assert (origin["commit"], origin["dirty"]) == commit()
    assert origin["device"]
    assert "ridge.safetensors" in origin["checkpoints"]
    assert "denoiser.safetensors" not in origin["checkpoints"]
    evaluate_judge.collect(["noisy", "savgol", "wiener"], folder)
    run = told(folder)[-1]
    assert run["methods"] == ["noisy", "savgol"]  # wiener has no piece: nothing of it is replaced
    assert run["origin"]["savgol"] == {
        "pieces": 1, "not_recorded": 0, "checkpoints": origin["checkpoints"], "seed": SEED,
        "commits": [origin["commit"]], "dirty": [origin["dirty"]], "draws": [4], "devices": [origin["device"]]}
    evaluate_judge.collect(["savgol"], folder)
    assert [list(r["origin"]) for r in told(folder)] == [["noisy"], ["savgol"]]


def test_pieces_of_different_checkpoints_or_seeds_are_refused_and_nothing_is_written(folder):
    good = json.loads((folder / "simulated-all-20-savgol-0.json").read_text())
    for change, word in (({"checkpoints": good["checkpoints"] | {"ridge.safetensors": "0" * 16}}, "ridge"),
                         ({"checkpoints": {}}, "noise.safetensors"), ({"seed": 1}, "seed")):
        again(folder, "savgol", **change)
        with pytest.raises(ValueError, match=rf"savgol do not belong together: .*{word}.*delete the older"):
            evaluate_judge.collect(["noisy", "savgol"], folder)
        assert not list((folder.parent / "results").iterdir())
    evaluate_judge.collect(["noisy"], folder)  # another method's quarrel is not its own
    again(folder, "savgol", commit="f" * 40, device="another", dirty=True)  # the control
    evaluate_judge.collect(["savgol"], folder)
    origin = told(folder)[-1]["origin"]["savgol"]
    assert origin["pieces"] == 2
    assert "f" * 40 in origin["commits"]
    assert len(origin["commits"]) == 2
    assert "another" in origin["devices"]


def test_pieces_of_before_are_collected_and_said_to_be_not_recorded(folder):
    again(folder, "savgol")
    (folder / "simulated-1-30-savgol-0.json").unlink()
    (folder / "simulated-all-20-noisy-0.json").unlink()
    evaluate_judge.collect(["noisy", "savgol"], folder)
    origin = told(folder)[-1]["origin"]
    assert origin["noisy"]["checkpoints"] == origin["noisy"]["commits"] == NOT_RECORDED
    assert (origin["savgol"]["pieces"], origin["savgol"]["not_recorded"]) == (2, 1)
    assert isinstance(origin["savgol"]["checkpoints"], dict)
    assert len(pd.read_parquet(folder.parent / "results" / "judge.parquet")) > 0


def test_runs_written_before_keep_their_form(folder):
    old = {"commit": "a" * 40, "methods": ["savgol", "pca"], "checkpoints": {}, "seconds": 3}
    evaluate_judge.collect(["noisy"], folder)
    path = folder.parent / "results" / "judge.json"
    path.write_text(json.dumps({"runs": [old]}))
    evaluate_judge.collect(["savgol"], folder)
    assert told(folder)[0] == old | {"methods": ["pca"]}


def test_an_empty_folder_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(ValueError, match="holds no piece of noisy; judge first"):
        evaluate_judge.collect(["noisy"], tmp_path)


def test_checkpoints_that_change_under_the_judge_stop_it(asked, tmp_path, monkeypatch):
    piece = evaluate_judge.plan([asked], ["noisy"], 4, tmp_path)[0]
    monkeypatch.setattr(judge_origin, "hashes", lambda method: {"ridge.safetensors": "changed"})
    with pytest.raises(ValueError, match="changed while it was judged"):
        evaluate_judge._job(piece)
    assert not list(tmp_path.glob("*.table"))


def test_the_commit_comes_from_git_or_from_the_environment_or_is_unknown(tmp_path, monkeypatch):
    monkeypatch.delenv("TRUELINE_COMMIT", raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit(tmp_path) == (UNKNOWN, UNKNOWN)
    monkeypatch.setenv("TRUELINE_COMMIT", "b" * 40 + "-dirty")
    assert commit(tmp_path) == ("b" * 40, True)
    monkeypatch.setenv("TRUELINE_COMMIT", "b" * 40)
    assert commit(tmp_path) == ("b" * 40, False)
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "a.py").write_text("1")
    who = ["-c", "user.name=n", "-c", "user.email=e"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "m"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    head, dirty = commit(tmp_path)
    assert len(head) == 40
    assert head != "b" * 40  # the tree's own word counts
    assert dirty is False
    (tmp_path / "results.csv").write_text("1")  # what the judge writes makes no other code of it
    assert commit(tmp_path) == (head, False)
    (tmp_path / "core" / "a.py").write_text("2")
    assert commit(tmp_path) == (head, True)
    (tmp_path / "inside").mkdir()
    assert commit(tmp_path / "inside") == ("b" * 40, False)  # a repository further up is another project's


def test_a_method_nobody_listed_hangs_on_every_checkpoint():
    every = {f.name for f in judge_origin.CHECKPOINTS.glob("*.safetensors")}
    assert set(record("new", 1, False)["checkpoints"]) == every
    assert set(METHODS) == set(judge_origin.OWN) - set(networks.OPTIONAL) | set(networks.there())


_ASK = """
import json, sys
from pathlib import Path
from core.models.estimators import RidgeLabels
from core.models.samplers import Diverged
from core.networks import ddpm
from core.pipeline import METHODS, judged, reconstruct
from scripts.judge_origin import CHECKPOINTS, hashes
from scripts.judge_stars import simulated
quick = json.loads(sys.argv[1])
asked = None
optional = [m for m in ("dncnn_blind", "supervised_mixture") if m in METHODS]
for method in ("noisy", "pca", "wiener", "dncnn", "supervised", "supervised_ivar", *optional, "dps", "mixture", "mmps",
               "pigdm", "exact"):
    away = [f for f in CHECKPOINTS.glob("*.safetensors") if f.name not in hashes(method)]
    for file in away:
        file.rename(file.with_suffix(".away"))
    asked = asked or simulated(20.0, 1)
    try:
        samples = reconstruct(asked.spectra, method, 1, 0, **quick.get(method, {}))
    except Diverged:
        pass  # in so few calls draws run away, and all that there is to load has been loaded
    if method == "noisy":
        judged(samples, asked.spectra, asked.truth, asked.labels, RidgeLabels.load(CHECKPOINTS / "ridge.safetensors"))
    for file in away:
        file.with_suffix(".away").rename(file)
ddpm.cache_clear()
(CHECKPOINTS / "ddpm.safetensors").unlink()  # the control
try:
    reconstruct(asked.spectra, "dps", 1, 0, **quick["dps"])
except Exception as error:
    print("control:", error)
"""


def test_a_method_needs_the_checkpoints_that_its_origin_names_and_no_others(tmp_path):
    """In a copy of the tree, where the others can be taken away."""
    for name in ("core", "scripts", "checkpoints"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    ask = [sys.executable, "-c", _ASK, json.dumps(QUICK)]
    done = subprocess.run(ask, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "control:" in done.stdout
    assert "ddpm" in done.stdout


def test_a_folder_that_is_added_to_is_of_one_set_of_checkpoints(tmp_path):
    origin = {"checkpoints": {"ridge.safetensors": "1"}, "seed": 1, "commit": "a"}
    judge_origin.keep(origin, tmp_path / "unknown.json", True)
    assert not (tmp_path / "unknown.json").exists()  # nobody knows where what is there comes from
    judge_origin.keep(origin, tmp_path / "origin.json", False)
    judge_origin.keep(origin | {"commit": "b"}, tmp_path / "origin.json", True)  # control: a commit alone may
    assert json.loads((tmp_path / "origin.json").read_text()) == origin
    with pytest.raises(ValueError, match="begun with other checkpoints and seed"):
        judge_origin.keep({"checkpoints": {}, "seed": 2}, tmp_path / "origin.json", True)


def test_parts_of_one_method_that_do_not_belong_together_are_refused(tmp_path):
    file = tmp_path / "audit.json"
    one, other = ({"checkpoints": {"ridge.safetensors": digit}, "seed": 1} for digit in "12")
    judge_origin.together({"exact/10": one, "pca/10": {}}, file, ["wiener/5"])
    assert json.loads(file.read_text()) == {"exact/10": one, "pca/10": NOT_RECORDED, "wiener/5": NOT_RECORDED}
    with pytest.raises(ValueError, match="exact/20.*exact/10|exact/10.*exact/20"):
        judge_origin.together({"exact/20": other}, file, ["exact/10", "wiener/5"])
    judge_origin.together({"exact/10": other, "pca/10": one}, file, ["exact/10"])  # control: asked again
    assert json.loads(file.read_text()) == {"exact/10": other, "pca/10": one}
