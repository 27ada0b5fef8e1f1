"""A cool star's error bars are said to be too narrow where the study found them so, and nowhere else."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import pytest

from app import narrow


def look(teff: float, snr: float = 20.0, low: object = 1.0):
    by = SimpleNamespace(label=lambda name: (teff, 50.0))
    answers = tuple(SimpleNamespace(method=m, low=low) for m in ("wiener", "exact"))
    return SimpleNamespace(kind=SimpleNamespace(by=by), measured=snr, answers=answers)


@pytest.fixture
def found(monkeypatch, tmp_path):
    rows = [("exact", 20.0, "below 4700 K", 61, 4.0, 0.7), ("exact", 100.0, "below 4700 K", 65, 1.1, 0.7),
            ("exact", 20.0, "all other stars", 339, 4.0, 0.7), ("wiener", 20.0, "below 4700 K", 61, 1.0, 0.7)]
    pd.DataFrame(rows, columns=["method", "snr", "kind", "stars", "z2", "pixels"]).to_csv(tmp_path / "exact_kinds.csv")
    monkeypatch.setattr("app.study.RESULTS", tmp_path)
    narrow._kinds.cache_clear()
    yield
    narrow._kinds.cache_clear()


def test_a_cool_star_is_warned_of(found):
    short, long = narrow.too_narrow(look(4300.0))
    assert short == "error bars too narrow here: exact"
    assert "exact 2.0 times" in long
    assert "exact has 70 % inside" in long
    assert "S/N 20 (61 of them)" in long


@pytest.mark.parametrize("shown", [look(5800.0), look(4300.0, snr=90.0), look(4300.0, low=None)],
                         ids=["warm", "an S/N where they are right", "no error bars"])
def test_nothing_is_said_without_a_cause(found, shown):
    assert narrow.too_narrow(shown) is None


def test_without_results_nothing_is_known(monkeypatch, tmp_path):
    monkeypatch.setattr("app.study.RESULTS", tmp_path)
    narrow._kinds.cache_clear()
    assert narrow.too_narrow(look(4300.0)) is None


def test_the_committed_table_names_its_kind_as_the_page_does():
    narrow._kinds.cache_clear()
    assert {"exact", "mixture"} <= set(narrow._kinds()["method"])
