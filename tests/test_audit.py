"""The audit goes on where it was killed, brings pieces home from elsewhere, and loses one method, not the run."""

from __future__ import annotations

import argparse
import shutil

import numpy as np
import pandas as pd
import pytest

from scripts import evaluate_audit
from scripts.evaluate_audit import EXPERIMENTS, Piece, audit


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Results of the tests are not those that are committed."""
    for name, file in (("TABLE", "audit.parquet"), ("NULLS", "audit_nulls.npz"), ("SUMMARY", "audit_summary.csv")):
        monkeypatch.setattr(evaluate_audit, name, tmp_path / file)
    monkeypatch.setattr(evaluate_audit, "WORK", tmp_path / "work")


def asked(**settings):
    known = {"methods": "noisy", "snr": [20.0], "audited": 2, "nulls": 100, "workers": 1, "pieces": None,
             "collect": False, "no_table": False}
    return argparse.Namespace(**known | settings)


def test_pieces_made_elsewhere_give_the_table_of_a_run_here(tmp_path, monkeypatch, capsys):
    audit(asked(methods="noisy,savgol", pieces=tmp_path / "there", no_table=True))
    assert not evaluate_audit.TABLE.exists()
    shutil.copytree(tmp_path / "there", tmp_path / "home")
    monkeypatch.setattr(evaluate_audit, "_job", lambda *_: pytest.fail("a method was asked"))
    Piece("savgol", 20.0, 2, tmp_path / "home").path("gap").unlink()  # killed before its end
    audit(asked(methods="noisy,savgol", audited=20, pieces=tmp_path / "home", collect=True))
    assert "savgol at S/N 20 with 2 stars is not finished" in capsys.readouterr().out
    first = pd.read_parquet(evaluate_audit.TABLE)
    assert set(first["method"]) == {"noisy"}
    assert set(first["experiment"]) == set(EXPERIMENTS)
    shutil.copytree(tmp_path / "there", tmp_path / "home", dirs_exist_ok=True)
    audit(asked(methods="savgol", pieces=tmp_path / "home", collect=True))
    both = pd.read_parquet(evaluate_audit.TABLE)
    pd.testing.assert_frame_equal(both[both["method"] == "noisy"].reset_index(drop=True), first)
    assert set(pd.read_csv(evaluate_audit.SUMMARY)["method"]) == {"noisy", "savgol"}
    assert set(evaluate_audit.nulls()) == {("noisy", 20.0), ("savgol", 20.0)}
    with pytest.raises(ValueError, match="no finished piece of pca"):
        audit(asked(methods="pca", pieces=tmp_path / "home", collect=True))


def test_a_killed_run_goes_on_and_a_finished_one_asks_nothing(tmp_path, monkeypatch):
    audit(asked(pieces=tmp_path / "pieces"))
    whole = pd.read_parquet(evaluate_audit.TABLE)
    piece = Piece("noisy", 20.0, 2, tmp_path / "pieces")
    piece.path("put in").unlink()
    monkeypatch.setattr(evaluate_audit, "calibrate", lambda *_: pytest.fail("the null was finished"))
    audit(asked(pieces=tmp_path / "pieces"))
    pd.testing.assert_frame_equal(pd.read_parquet(evaluate_audit.TABLE), whole)
    monkeypatch.setattr(evaluate_audit, "answer", lambda *_: pytest.fail("all was finished"))
    audit(asked(pieces=tmp_path / "pieces"))
    assert not list((tmp_path / "pieces").glob("*.part"))


def test_a_method_that_fails_is_named_and_the_others_are_in_the_table(tmp_path, monkeypatch):
    right = evaluate_audit.answer

    def failing(method, spectra, n, seed):
        return np.full((n, *spectra.flux.shape), np.nan) if method == "pca" else right(method, spectra, n, seed)

    monkeypatch.setattr(evaluate_audit, "answer", failing)
    with pytest.raises(SystemExit, match="pca at S/N 20, null: the method answered"):
        audit(asked(methods="pca,noisy"))
    assert set(pd.read_parquet(evaluate_audit.TABLE)["method"]) == {"noisy"}


def test_bad_input_is_refused_before_anything_is_computed(monkeypatch):
    monkeypatch.setattr(evaluate_audit, "_job", lambda *_: pytest.fail("a method was asked"))
    with pytest.raises(ValueError, match="did you mean 'mixture'"):
        audit(asked(methods="mixtur"))
    with pytest.raises(ValueError, match="at least 1"):
        audit(asked(audited=0))
    with pytest.raises(ValueError, match="at least 100"):
        audit(asked(nulls=99))
