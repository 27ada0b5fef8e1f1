"""Page Models and data: its numbers are the tables', its hashes the files', its button forgets."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from app import cards, proved, resources, study

ROOT = Path(__file__).resolve().parent.parent
TABLES = ("exact_coverage.csv", "exact_ratios.csv", "judge_summary.csv", "audit_summary.csv", "rho.csv",
          "reality_gap.csv", "exact_kinds.csv")


@pytest.fixture(autouse=True)
def no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRUELINE_FOLDER", raising=False)
    monkeypatch.setattr("sys.argv", ["main.py"])


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in TABLES:
        shutil.copy(study.RESULTS / name, tmp_path)
    monkeypatch.setattr(study, "RESULTS", tmp_path)
    return tmp_path


def about() -> AppTest:
    app = AppTest.from_file(str(ROOT / "app/main.py"), default_timeout=60)
    app.query_params["methods"] = "none"
    app.switch_page("views/about.py").run()
    assert not app.exception, [e.value for e in app.exception]
    assert not app.error, [e.value for e in app.error]
    return app


def words(app: AppTest) -> str:
    return " ".join(str(part.value) for part in [*app.markdown, *app.caption, *app.code, *app.warning, *app.info])


def test_the_page_says_what_is_proved_what_is_not_and_how_to_cite() -> None:
    app = about()
    spoken = words(app)
    assert [tab.label for tab in app.tabs] == [
        "What is proved", "Reality gap", "What you see", "Methods", "Models", "Data and cache"]
    for sentence in proved.proved():
        assert sentence in spoken
    for said in ("Not proved", "cff-version", "MIT", "data policy", "calibrated at no strength", "Folders named at"):
        assert said in spoken, said
    assert len(app.dataframe) == 2


def test_numbers_come_from_the_tables_and_change_with_them(tables: Path) -> None:
    before = proved.proved()
    assert len(before) == 8
    assert not any("nan" in sentence for sentence in before)
    rows = pd.read_csv(tables / "exact_coverage.csv")
    real = rows.query("sample == 'real' and method == 'exact'")
    low, high = 100 * real["EW"].min(), 100 * real["EW"].max()
    assert f"hold {low:.0f}-{high:.0f} % of the equivalent widths" in before[0]
    rows.loc[real.index, "EW"] = 0.123
    rows.to_csv(tables / "exact_coverage.csv", index=False)
    assert "hold 12 % of the equivalent widths" in proved.proved()[0]


def test_the_readme_says_the_same_of_the_exact_posterior() -> None:
    said = re.search(r"hold (\d+-\d+) % of the equivalent widths and (\d+-\d+) % of the pixels", proved.proved()[0])
    assert said
    readme = (ROOT / "README.md").read_text()
    assert f"hold {said[1]} % of the equivalent widths and {said[2]} % of the pixels" in readme


@pytest.mark.parametrize("missing", TABLES)
def test_a_table_that_is_missing_takes_its_sentence_along_and_no_other(tables: Path, missing: str) -> None:
    whole = proved.proved()
    (tables / missing).unlink()
    left = proved.proved()
    assert set(left) <= set(whole)
    if missing == "reality_gap.csv":
        assert left == whole
        with pytest.raises(ValueError, match="evaluate reality"):
            proved.reality_gap()
    else:
        assert 0 < len(left) < len(whole)
    assert "fault in Trueline" not in words(about())


def test_an_empty_results_folder_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "RESULTS", tmp_path)
    assert "take them from the repository" in words(about())


def test_every_file_that_ships_is_as_recorded() -> None:
    table = cards.models()
    assert set(table["file"]) == {file.name for file in cards.CHECKPOINTS.glob("*.safetensors")}
    assert set(table["state"]) == {"as recorded"}
    assert table["what"].str.len().min() > 3
    denoiser = table.set_index("file").loc["denoiser.safetensors"]
    card = json.loads((cards.CHECKPOINTS / "denoiser.json").read_text())
    assert denoiser["spectra seen"] == card["spectra_seen"]
    assert denoiser["hardware"] == card["hardware"]
    assert f"{card['losses']['loss']:.3g}" in denoiser["losses"]


def test_a_changed_byte_is_called_changed_and_a_file_of_ones_own_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sky.safetensors", "emulator.safetensors", "emulator.json", "SHA256SUMS.json"):
        shutil.copy(cards.CHECKPOINTS / name, tmp_path)
    (tmp_path / "mine.safetensors").write_bytes(b"mine")
    (tmp_path / "mine.json").write_text("no card")
    data = bytearray((tmp_path / "sky.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "sky.safetensors").write_bytes(data)
    monkeypatch.setattr(cards, "CHECKPOINTS", tmp_path)
    states = cards.models().set_index("file")["state"].to_dict()
    assert states == {"emulator.safetensors": "as recorded", "mine.safetensors": "no record",
                      "sky.safetensors": "CHANGED"}
    assert "another SHA-256" in words(about())


def test_the_cache_is_shown_and_its_button_forgets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    forgot: list[bool] = []
    monkeypatch.setattr(resources, "cache_state", lambda: (12_300_000, 1_000_000_000, tmp_path, 7))
    monkeypatch.setattr(resources, "clear_cache", lambda: forgot.append(True))
    app = about()
    assert "7 answers, 12 of at most 1000 MB" in words(app)
    assert str(tmp_path) in words(app)
    assert not forgot
    app.button(key="forget").click().run()
    assert forgot == [True]
    assert not app.exception
