"""The benchmark counts what was called, fits how time grows, and says in words what it leaves out."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from core.models.denoiser import Denoiser
from scripts import benchmark
from scripts.benchmark import TODAY, against, alone, counted, memory, rows_of, scaling
from scripts.judge_stars import simulated


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(1, 4, 3, padding=1), nn.SiLU(), nn.Conv1d(4, 1, 3, padding=1))

    def forward(self, x):
        return self.layers(x)


class Learned(Denoiser):
    def __init__(self) -> None:
        super().__init__()
        self.network = Network()

    def forward(self, x, sigma, rho=None):
        return self.network(x.reshape(-1, 1, x.shape[-1])).reshape(x.shape)


class Closed(Denoiser):
    def forward(self, x, sigma, rho=None):
        return x / (1 + sigma**2)


class Posterior(Denoiser):
    def __init__(self, prior: Denoiser) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, x, sigma, rho=None):
        return self.prior(self.prior(x, sigma), sigma)


def test_networks_and_denoisers_are_counted_once_from_outside():
    x = torch.zeros(3, 2, 16)  # 3 draws of 2 stars
    with counted() as calls, torch.inference_mode():
        Posterior(Learned())(x, torch.ones(16))
        Closed()(x[0], torch.ones(16))
    assert (calls.denoiser, calls.through_denoiser) == (2, 6 + 2)
    assert (calls.network, calls.through_network) == (2, 12)  # twice inside the posterior, 6 spectra each
    Learned()(x, torch.ones(16))
    assert calls.network == 2  # nobody listens any longer


def test_a_call_that_fails_does_not_spoil_the_count():
    with counted() as calls:
        with pytest.raises(RuntimeError):
            Network()(torch.zeros(1, 2, 16))
        Network()(torch.zeros(5, 1, 16))
    assert (calls.network, calls.through_network) == (1, 5)


def table(seconds, along="draws") -> pd.DataFrame:
    n = np.array([1, 4, 16, 64])
    return pd.DataFrame({"method": "m", "stars": n if along == "stars" else 1,
                         "draws": n if along == "draws" else benchmark.AMONG, "seconds": seconds(n.astype(float)),
                         "peak_mb": 100.0 + n, "how": "measured"})


@pytest.mark.parametrize("along", ["draws", "stars"])
def test_growth_is_found_and_a_square_is_no_line(along):
    linear = scaling(table(lambda n: 0.3 + 0.02 * n, along)).set_index("along").loc[along]
    assert (linear["fixed"], linear["each"]) == pytest.approx((0.3, 0.02))
    assert linear["off"] < 1e-9
    assert linear["slope"] < 1
    assert linear["growth_mb"] == 63
    assert scaling(table(lambda n: 0.1 * n, along))["slope"].item() == pytest.approx(1)
    square = scaling(table(lambda n: 0.1 * n**2, along))
    assert square["slope"].item() == pytest.approx(2)
    assert square["off"].item() > 0.5
    multiplied = table(lambda n: n, along).assign(how="1 stars x 1 draws, times 16")
    assert scaling(multiplied).empty  # what was not measured proves nothing


def test_todays_way_is_compared_for_the_same_draws():
    rows = pd.DataFrame({"method": [TODAY, TODAY, "m", "m"], "draws": [1, 16, 16, 100], "seconds": [8.0, 80, 4, 9],
                         "seconds_per_star": [8.0, 80, 2, 9]})
    np.testing.assert_array_equal(against(rows)["times_less"], [1, 1, 40, np.nan])
    assert against(rows.iloc[2:])["times_less"].isna().all()  # not installed: no comparison, no failure


def test_long_rows_are_multiplied_and_say_from_what(monkeypatch):
    asked = []

    def answer(work, method, spectra, draws, threads):
        asked.append((len(spectra), draws))
        return {"method": method, "stars": len(spectra), "draws": draws, "how": "measured",
                "seconds": len(spectra) * draws}

    monkeypatch.setattr(benchmark, "alone", answer)
    rows = rows_of("noisy", simulated(20.0, 8).spectra, 1, limit=40.0)
    assert asked == [(1, 1), (1, 16), (2, 16)]
    assert [(r["stars"], r["draws"], r["seconds"]) for r in rows] == [
        (1, 1, 1), (1, 16, 16), (1, 100, 100), (2, 16, 32), (4, 16, 64), (8, 16, 128)]
    assert rows[2]["how"] == "1 stars x 16 draws, times 6.25"
    assert rows[4]["how"] == "2 stars x 16 draws, times 2"


def test_without_the_extra_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "denoising_diffusion_pytorch", None)
    monkeypatch.setattr(benchmark.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"not installed; `pip install 'trueline\[benchmark\]'`"):
        benchmark.todays()


def hold(megabytes: int) -> dict[str, float]:
    """Touches so much memory and lets it go: the peak knows."""
    before, _ = memory()
    block = np.ones(megabytes * 2**17)
    del block
    return {"grew": memory()[1] - before}


def test_a_row_has_its_own_peak_of_memory():
    np.ones(600 * 2**17)  # the parent's peak is not the child's
    assert 190 < alone(hold, 200)["grew"] < 300


def test_the_apps_figures_stand_beside_what_is_wanted_and_a_missed_one_says_so():
    from scripts.benchmark_app import Report

    report = Report()
    report.add("quick", 0.1, "s", 0.2)
    report.add("slow", 0.3, "s", 0.2)
    report.add("for information", 9.0, "s")
    report.add("not measured", float("nan"), "s", 1.0)
    assert [row["meets"] for row in report.rows] == ["yes", "NO", "", "NO"]


def test_the_app_is_timed_with_the_methods_of_a_first_visit():
    from app import state
    from core import question
    from scripts.benchmark_app import METHODS

    assert set(state.usual(question.methods())) < set(METHODS.split(","))


def test_the_apps_memory_is_that_of_its_server_and_what_that_started(tmp_path):
    import subprocess

    from scripts.benchmark_app import memory

    code = "import subprocess, sys, time; x = bytearray(10**8); {}; print(1, flush=True); time.sleep(60)"
    child = "subprocess.Popen([sys.executable, '-c', 'import time; y = bytearray(10**8); time.sleep(60)'])"
    command = [sys.executable, "-c", code.format(f"p = {child}; time.sleep(2)"), "--server.port", "59999", "x"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        found = memory("http://127.0.0.1:59999")
        for line in subprocess.run(["ps", "-o", "pid=", "--ppid", str(server.pid)], capture_output=True,
                                   text=True, check=False).stdout.split():
            subprocess.run(["kill", line], check=False)
        server.kill()
    assert 0.18 < found < 0.4
