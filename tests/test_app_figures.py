"""The dashboard's answers, figures and file: what a Look holds, draws and writes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly import io

from app import charts, charts_star, charts_windows, resources, told
from app.shown import Answer, Look, Star
from app.styles import WINDOWS
from core import pipeline
from core.data import noise
from core.metrics import fidelity
from core.metrics.flags import Flag
from core.metrics.lines import LINES

METHODS = ["savgol", "wavelet"]  # filters: quick, and without a band


def a_look(snr: float | None = 8.0, methods: list[str] = METHODS) -> Look:
    stars = resources.catalogue().stars
    return resources.look(stars[str(resources.default(stars))], snr, methods, 3)


def test_a_look_is_what_core_says_it_is() -> None:
    look = a_look()
    assert np.isclose(noise.snr(look.spectra)[0], 8.0, rtol=0.2)
    for answer in look.answers:
        expected = pipeline.reconstruct(look.spectra, answer.method, seed=3).mean[0]
        assert np.array_equal(answer.flux, expected.astype(np.float32)), "rounded, as a kept answer is"
        assert np.isclose(answer.chi2, np.nanmean(answer.residual**2))
        assert answer.low is None
        assert np.isclose(answer.chi2_lines, np.nanmean(answer.residual[look.lines] ** 2))
        live = look.spectra.measured[0]
        assert np.isclose(answer.rms, fidelity.rms_error(answer.flux, look.star.truth, live))
        assert np.isclose(answer.rms_lines, fidelity.rms_error(answer.flux, look.star.truth, live & look.lines))


def test_figures_draw_nothing_across_what_was_not_measured_and_hatch_it() -> None:
    look = a_look()
    dead = ~look.spectra.measured[0]
    assert dead.any()
    figure = charts_star.spectrum(look)
    names = {trace.name: trace for trace in figure.data}
    assert np.array_equal(np.isnan(names["observed ± 1σ"].y), dead)
    hatch = names["not measured"]
    left, right = np.array(hatch.x[::5], dtype=float), np.array(hatch.x[2::5], dtype=float)
    inside = ((look.spectra.wave[:, None] > left) & (look.spectra.wave[:, None] < right)).any(1)
    assert np.array_equal(inside, dead)
    assert hatch.fillpattern.shape == "/"


def test_figures_carry_full_axis_names_fixed_colours_and_no_unnamed_method() -> None:
    look = a_look()
    for air, medium in ((False, "vacuum"), (True, "air")):
        for figure in (charts_star.spectrum(look, air=air), charts_windows.windows(look, air=air, dark=True)):
            titles = {axis.title.text for axis in [*figure.select_xaxes(), *figure.select_yaxes()]}
            assert f"Wavelength ({medium}) [Angstrom]" in titles
            assert "Flux / continuum" in titles
    shown = {trace.name: trace for trace in charts_star.spectrum(look).data if trace.showlegend}
    assert len([name for name in shown if "no error bar" in name]) == len(METHODS)
    looks = [(shown[f"{charts.style(m).name} (no error bar)"].line.color, charts.style(m).dash) for m in METHODS]
    assert len(set(looks)) == len(METHODS)
    assert charts.style("never seen").name == "never seen"


def test_only_residuals_beyond_two_sigma_are_coloured() -> None:
    for trace in charts_star.spectrum(a_look()).data:
        if trace.yaxis == "y2" and trace.mode == "markers":
            assert (np.abs(trace.y) > 2).all()


def test_residuals_beyond_the_panel_are_marked_at_its_edge_and_counted() -> None:
    look = a_look()
    residual = np.where(look.spectra.measured[0], 0.0, np.nan)
    at = np.flatnonzero(look.spectra.measured[0])[100:160]
    residual[at] = np.where(np.arange(60) % 2, 50.0, -9.0)
    figure = charts_star.spectrum(replace(look, answers=(replace(look.answers[0], residual=residual),)))
    notes = [note.text or "" for note in figure.layout.annotations]
    assert any(n.startswith("60 pixels beyond ±8: ") and n.endswith(" 60") for n in notes)
    edge = [trace for trace in figure.data if trace.yaxis == "y2"][-1]
    assert edge.mode == "markers"
    assert np.allclose(edge.x, look.spectra.wave[at])
    assert (np.abs(edge.y) < figure.layout.yaxis2.range[1]).all()
    assert (np.sign(edge.y) == np.sign(residual[at])).all()
    assert not charts_star.beyond(look, 50.0)


def test_outliers_do_not_set_the_scale() -> None:
    look = a_look()
    flux = look.spectra.flux.copy()
    flux[0, np.flatnonzero(look.spectra.measured[0])[::400]] = 500.0
    wild = replace(look, spectra=replace(look.spectra, flux=flux))
    assert charts_star.spectrum(wild).layout.yaxis.range[1] < 3


def test_a_star_without_methods_or_rv_or_with_a_band_draws() -> None:
    look = a_look()
    charts_windows.windows(a_look(methods=[]))
    charts_star.spectrum(a_look(methods=[]))
    meta = look.spectra.meta.drop(columns="rv")
    among = replace(look.star.among, meta=pd.concat([meta] * len(look.star.among), ignore_index=True))
    charts_windows.windows(replace(look, star=replace(look.star, among=among)))
    flux = look.answers[0].flux
    wide = Answer("exact", flux, flux - 0.1, flux + 0.1, look.answers[0].residual, 1.0, 1.0)
    names = [trace.name for trace in charts_star.spectrum(replace(look, answers=(wide,))).data]
    assert "exact (68 % band)" in names


def test_the_csv_says_what_it_is_and_holds_what_is_shown(tmp_path: Path) -> None:
    look = a_look()
    text = look.csv()
    head = [line for line in text.splitlines() if line.startswith("#")]
    assert any("SIMULATED" in line for line in head)
    assert any("seed: 3" in line for line in head)
    assert any("without an uncertainty" in line and all(m in line for m in METHODS) for line in head)
    (tmp_path / look.file).write_text(text)
    table = pd.read_csv(tmp_path / look.file, comment="#")
    assert len(table) == look.spectra.wave.size
    assert table["flux"].isna().sum() == (~look.spectra.measured).sum()
    for column, expected in [("truth", look.star.truth), *((a.method, a.flux) for a in look.answers)]:
        assert np.allclose(table[column], expected, rtol=1e-5, atol=1e-6)
    assert np.allclose(table["wavelength_vacuum"], look.spectra.wave, rtol=1e-5)


def as_if_real() -> Star:
    """A bundled star whose truth nobody knows."""
    stars = resources.catalogue().stars
    star = stars[str(resources.default(stars))]
    meta = star.among.meta.assign(origin="observed", ivar_mended=12)
    return replace(star, key="folder:x", source="Folder", among=replace(star.among, meta=meta), truth=None)


def test_a_degraded_real_star_is_beside_its_own_spectrum_which_is_not_called_truth() -> None:
    star = as_if_real()
    whole, poor = resources.look(star, None, METHODS, 0), resources.look(star, 9.0, METHODS, 0)
    assert whole.own is None
    assert all(a.rms is None for a in whole.answers)
    live = poor.spectra.measured[0]
    assert np.array_equal(poor.own[live], star.spectra.flux[0][live])
    assert np.isnan(poor.own[~live]).all()
    assert np.isclose(poor.answers[0].rms, fidelity.rms_error(poor.answers[0].flux, star.spectra.flux[0], live))
    for figure in (charts_star.spectrum(poor), charts_windows.windows(poor, dark=True)):
        names = [trace.name for trace in figure.data]
        assert f"own spectrum, S/N {star.own:.0f} (not truth)" in names
        assert "truth (simulated)" not in names
    assert any("sky residuals" in note.text for note in charts_star.spectrum(poor).layout.annotations)


def test_the_file_of_a_real_star_says_what_its_sigma_rests_on() -> None:
    look = resources.look(as_if_real(), 9.0, METHODS, 0)
    head = "".join(line for line in look.csv().splitlines(keepends=True) if line.startswith("#"))
    for part in ("OBSERVED", "measured on one 2011 plate", "sky residuals", "ivar_mended: 12 pixels", "not truth"):
        assert part in head
    table = look.table()
    scale = look.spectra.noise.scales(look.spectra.wave)
    assert np.allclose(table["sigma"], scale * table["sigma_quoted"], equal_nan=True)
    assert "truth" not in table
    assert "own_spectrum" in table


def test_an_snr_that_missed_its_target_says_so() -> None:
    look = a_look()
    assert replace(look, measured=8.05).degraded.endswith("→ 8")
    assert replace(look, measured=7.8).degraded.endswith("→ 8 (measures 7.8)")
    assert "→" not in a_look(snr=None).degraded


def test_an_answer_with_draws_says_what_it_rests_on() -> None:
    look = a_look()
    first, flux = look.answers[0], look.answers[0].flux
    told = {"strength": 0.03, "steps": 50}
    dps = replace(first, method="dps", low=flux - 0.1, high=flux + 0.1, draws=8, settings=told)
    drawn = replace(look, answers=(first, dps))
    assert "DPS, strength 0.03 (uncalibrated band)" in [trace.name for trace in charts_star.spectrum(drawn).data]
    head = "".join(line for line in drawn.csv().splitlines(keepends=True) if line.startswith("#"))
    assert "draws: dps 8 strength=0.03 steps=50" in head
    assert "not calibrated: the quantiles of dps (" in head
    assert "undertrained" not in head
    rivals = [replace(dps, method=name, settings={}) for name in ("supervised", "supervised_ivar", "exact")]
    assert [rival.bar for rival in rivals] == ["uncalibrated band", "uncalibrated band", "68 % band"]
    assert "undertrained here: supervised, supervised_ivar (" in replace(look, answers=tuple(rivals)).csv()
    assert charts.style("dps").colour == "#E69F00"
    assert charts.style("exact").colour == "#0072B2"


# ------------------------------------------------------------------------------------------ trust, flags, draws, frames


def drawn(look: Look, method: str = "exact", flags: tuple[Flag, ...] = ()) -> Look:
    """The look with one answer that draws: eight of them about the first answer."""
    rng = np.random.default_rng(1)
    flux = look.answers[0].flux
    draws = flux + 0.05 * rng.standard_normal((8, len(flux)))
    trust = np.linspace(0, 1, len(flux))
    answer = replace(look.answers[0], method=method, low=flux - 0.05, high=flux + 0.05, drawn=draws, draws=8,
                     flags=flags, trust=trust)
    return replace(look, answers=(answer,))


def test_an_answer_that_draws_has_two_bands_three_draws_and_its_trust() -> None:
    look = drawn(a_look())
    figure = charts_star.spectrum(look)
    thin = [trace for trace in figure.data if trace.name == "exact, a draw"]
    assert len(thin) == charts.DRAWN
    for trace, draw in zip(thin, look.answers[0].drawn, strict=False):
        assert np.allclose(trace.y, draw, atol=1e-6)
    bands = [t for t in figure.data if t.fill == "toself" and t.fillcolor.startswith("rgba(0,114,178")]
    spans = sorted(float(np.nanmax(t.y[:200]) - np.nanmin(t.y[:200])) for t in bands)
    assert len(spans) == 2
    trust = [trace for trace in figure.data if trace.yaxis == "y4"]
    assert len(trust) == 1
    assert trust[0].y[0] > 0.99, "data: all, at the blue end of this one"
    assert trust[0].y[-1] < 0.01, "and prior at the red end"
    assert figure.layout.yaxis4.ticktext == ("prior", "data")
    point = charts_star.spectrum(a_look())
    assert not [trace for trace in point.data if trace.yaxis == "y4"], "a filter has no prior to be told"


def test_a_flag_is_a_triangle_where_it_is_and_says_by_whom() -> None:
    one, other = Flag(6301.0, 2.0, 7.1, 1e-6, 0.8), Flag(8100.0, 2.0, -4.4, 0.004, -0.3)
    figure = charts_star.spectrum(drawn(a_look(), flags=(one, other)))
    (mark,) = [trace for trace in figure.data if trace.name == "flag: exact"]
    assert np.allclose(mark.x, [6301.0, 8100.0], atol=0.01)
    assert mark.marker.symbol == "triangle-down"
    assert "7.1 σ at 6301 Å removed by exact" in mark.text[0]
    notes = [note.text for note in figure.layout.annotations]
    assert "<b>7.1 σ at 6301 Å removed by exact (and 1 more)</b>" in notes
    assert not [t for t in charts_star.spectrum(drawn(a_look())).data if (t.name or "").startswith("flag")]


def test_what_two_methods_removed_at_one_place_is_one_flag_of_both() -> None:
    look = a_look()
    flags = (Flag(6301.0, 2.0, 7.1, 1e-6, 0.8),), (Flag(6302.0, 3.0, 5.0, 1e-3, 0.7), Flag(7000.0, 2.0, 4.5, 0.01, 0.2))
    look = replace(look, answers=tuple(replace(a, flags=f) for a, f in zip(look.answers, flags, strict=True)))
    found = told.together(look)
    assert [(round(flag.wavelength), len(methods)) for flag, methods in found] == [(6301, 2), (7000, 1)]


def test_in_the_rest_frame_the_lines_stand_at_their_own_wavelengths() -> None:
    look = a_look()
    assert look.star.velocity != 0
    for rest, shift in ((True, 0.0), (False, look.star.velocity)):
        figure = charts_star.spectrum(look, rest=rest)
        (lines,) = [trace for trace in figure.data if trace.name == "lines"]
        at = dict(zip(lines.customdata, lines.x, strict=True))
        assert np.isclose(at["H alpha"], 6564.61 * (1 + shift / 299792.458), atol=0.02)
        assert ("rest frame" in figure.layout.xaxis.title.text) == rest


def test_lines_have_a_strip_of_their_own_for_a_click_and_windows_name_theirs() -> None:
    look = a_look()
    figure = charts_star.spectrum(look)
    (strip,) = [trace for trace in figure.data if trace.yaxis == "y5"]
    assert {"H alpha", "Ca II K", "Mg b"} <= set(strip.customdata)
    assert [text for text in strip.text if text] == [window.name for window in WINDOWS]
    low, high = figure.layout.yaxis5.domain
    assert low > figure.layout.yaxis.domain[1], "over the flux, whose points a click would find first"
    assert high == 1
    marked = [trace for trace in figure.data if "markers" in (trace.mode or "")]
    assert all(trace.unselected.marker.opacity == 1 for trace in marked), "a click must not pale what was not clicked"
    windows = [trace for trace in charts_windows.windows(look).data if trace.name == charts_windows.CLICK]
    assert [trace.customdata[0] for trace in windows] == list(told.MEASURED.values())
    for trace in windows:
        (line,) = set(trace.customdata)
        assert trace.x[0] < LINES[line].centre * (1 + look.star.velocity / 299792.458) < trace.x[-1]
        assert trace.marker.opacity == trace.selected.marker.opacity == trace.unselected.marker.opacity == 0
        assert trace.hoverinfo == "none", "skip would hide it from a click"
        assert trace.marker.size <= 6, "larger, and the pointer finds the lines first"


def test_an_answer_of_before_is_grey_and_says_so() -> None:
    look = a_look()
    figure = charts_star.spectrum(replace(look, answers=(), stale=look.answers[:1]))
    (old,) = [trace for trace in figure.data if "before, being made anew" in (trace.name or "")]
    assert old.line.color.startswith("rgba(153,153,153")


def test_the_windows_tell_what_each_method_measures() -> None:
    look = a_look()
    table = told.lines(look)
    figure = charts_windows.windows(look, table=table)
    notes = [note.text for note in figure.layout.annotations]
    row = table[(table["method"] == METHODS[0]) & (table["line"] == "H alpha") & (table["quantity"] == "EW")].iloc[0]
    assert any(f"{row['value']:.2f}±" in note for note in notes)
    assert sum("±" in note for note in notes) == 5 * len(METHODS)
    assert figure.layout.height == charts_windows.height(look)
    assert charts_star.height(look) + charts_windows.height(look) == charts_star.HEIGHT


def test_a_figure_is_sent_as_plotly_has_it_and_drawn_once() -> None:
    look = drawn(a_look(), flags=(Flag(6300.0, 2.0, 4.1, 1e-3, 0.2),))
    for make in (charts_star.spectrum, charts_windows.windows):
        figure = make(look)
        assert isinstance(figure, charts.Drawn)
        sent = json.loads(io.to_json(figure.to_dict(), validate=False))
        checked = go.Figure(figure.__dict__["_spec"])
        assert sent == json.loads(io.to_json(checked.to_dict(), validate=False))
        assert figure.data[0].x is not None, "Plotly's check was made, for somebody looked inside"
        assert figure.layout.height == sent["layout"]["height"]
        assert json.loads(io.to_json(figure.to_dict(), validate=False)) == sent
        assert make(replace(look)) is figure, "the same, though another object"
        other = replace(look.answers[0], flux=look.answers[0].flux + 1e-3)
        assert make(replace(look, answers=(other, *look.answers[1:]))) is not figure
        assert make(look, air=True) is not figure
        assert make(look, dark=True) is not make(look, air=True)
