"""The dashboard in a real browser: it paints, fits the window, obeys the keyboard, hands out its file."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.data import library
from scripts.screenshot import BROWSER, server

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install 'trueline[test]')")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine (apt install chromium)"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("spectra")
    shutil.copy(library.BUNDLED / "sim-01.fits.gz", folder)
    with server(str(folder), cache=str(tmp_path_factory.mktemp("cache"))) as found:
        yield found


@pytest.fixture(scope="module")
def chrome() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=BROWSER)
        yield browser
        browser.close()


@pytest.fixture(autouse=True)
def closed(chrome: sync_api.Browser) -> Iterator[None]:
    """No page stays open after its test: one that failed would draw on, at the expense of the next."""
    yield
    for context in chrome.contexts:
        context.close()


def opened(chrome: sync_api.Browser, **look: Any) -> sync_api.Page:
    """A new page, with patience for two cores that do other things as well."""
    page = chrome.new_page(**look)
    page.set_default_timeout(PATIENCE)
    return page


PATIENCE = 120_000  #: milliseconds
#: of a figure: pixels of a place on two of its axes
AT = """(f, [x, at, y, up]) => [[x, at], [y, up]].map(([a, v]) => f._fullLayout[a]._offset + f._fullLayout[a].l2p(v))"""


def settled(page: sync_api.Page) -> None:
    page.wait_for_selector(".js-plotly-plot .scatterlayer", timeout=PATIENCE)
    page.wait_for_selector("[data-testid=stStatusWidget]", state="detached", timeout=PATIENCE)
    page.wait_for_timeout(400)
    page.wait_for_selector("[data-testid=stProgress]", state="detached", timeout=2 * PATIENCE)  # slow answers
    page.wait_for_timeout(400)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_one_look_holds_the_page(address: str, chrome: sync_api.Browser, tmp_path: Path, scheme: str) -> None:
    page = opened(chrome, viewport={"width": 1280, "height": 720}, color_scheme=scheme)
    page.goto(address)
    settled(page)
    page.screenshot(path=str(tmp_path / f"{scheme}.png"))
    assert (tmp_path / f"{scheme}.png").stat().st_size > 50_000
    assert page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") == (scheme == "dark")

    wide = page.evaluate("document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth")
    assert wide <= 0, f"the page is {wide} pixels wider than the window"
    figures = page.locator(".js-plotly-plot")
    assert figures.count() == 2
    for i in range(2):
        box = figures.nth(i).bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 1280
        assert box["y"] + box["height"] <= 720
    clipped = page.evaluate(
        """[...document.querySelectorAll('.js-plotly-plot text')].filter(t => {
            const a = t.getBoundingClientRect(), b = t.closest('.js-plotly-plot').getBoundingClientRect();
            return a.width && t.textContent &&
                (a.left < b.left - 1 || a.right > b.right + 1 || a.bottom > b.bottom + 1);
        }).map(t => t.textContent)"""
    )
    assert not clipped, f"words beyond the edge of their figure: {clipped}"
    ink = page.locator(".js-plotly-plot .xtitle").first.evaluate("t => getComputedStyle(t).fill")
    assert ink == ("rgb(250, 250, 250)" if scheme == "dark" else "rgb(0, 0, 0)")
    page.close()


def test_an_open_page_that_turns_dark_or_light_is_drawn_anew_in_its_ink(address: str, chrome: sync_api.Browser) -> None:
    page = opened(chrome, viewport={"width": 1280, "height": 720}, color_scheme="light")
    page.goto(f"{address}/?methods=wavelet")
    settled(page)
    title = page.locator(".js-plotly-plot .xtitle").first
    assert title.evaluate("t => getComputedStyle(t).fill") == "rgb(0, 0, 0)"
    for scheme, ink in (("dark", "rgb(250, 250, 250)"), ("light", "rgb(0, 0, 0)")):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(
            "ink => getComputedStyle(document.querySelector('.js-plotly-plot .xtitle')).fill === ink", arg=ink,
            timeout=PATIENCE)
    page.close()


def test_the_keyboard_moves_the_snr_the_link_keeps_it_and_the_file_comes(
    address: str, chrome: sync_api.Browser
) -> None:
    page = opened(chrome, viewport={"width": 1280, "height": 720}, accept_downloads=True)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{address}/?snr=9")
    settled(page)
    measured = "figure => [...figure._fullData[1].y.slice(1000, 1010)].join()"
    before = page.locator(".js-plotly-plot").first.evaluate(measured)
    slider = page.get_by_role("slider").first
    slider.focus()
    slider.press("ArrowLeft")
    page.get_by_text("→ 8").wait_for(timeout=PATIENCE)
    settled(page)
    assert "snr=8" in page.url
    assert page.locator(".js-plotly-plot").first.evaluate(measured) != before

    for _ in range(3):  # a page that runs once more at this moment takes the file back: one clicks again
        with page.expect_download() as coming:
            page.get_by_role("button", name="CSV").click()
        if coming.value.failure() is None:
            break
        settled(page)
    assert "Trueline" in Path(coming.value.path()).read_text()[:200]
    assert coming.value.suggested_filename.endswith("_snr8.csv")

    link = page.url
    page.goto(link)
    page.get_by_text("→ 8").wait_for(timeout=PATIENCE)
    assert page.url == link
    assert not said
    elsewhere = [url for url in asked if not url.startswith((address, address.replace("http", "ws"), "data:", "blob:"))]
    assert not elsewhere, f"nothing may leave this machine, not even for an icon: {elsewhere}"
    page.close()


def test_the_link_brings_all_back_the_pointer_names_a_line_and_a_drag_zooms(
    address: str, chrome: sync_api.Browser
) -> None:
    page = opened(chrome, viewport={"width": 1280, "height": 720})
    page.goto(f"{address}/?star=simulated:SIM13&snr=9&methods=mixture&draws=16&frame=rest&wave=air")
    settled(page)
    assert "draws=16" in page.url
    assert "frame=rest" in page.url
    figure = page.locator(".js-plotly-plot").first
    assert "(air, rest frame)" in figure.locator(".xtitle").first.text_content()
    assert "removed by mixture" in figure.text_content(), "the line put in is flagged, in words, without a pointer"
    box = figure.bounding_box()
    assert box is not None
    x, y = figure.evaluate(AT, ["xaxis", 6562.8, "yaxis5", 0.3])
    page.mouse.move(box["x"] + x, box["y"] + y)
    page.get_by_text("H alpha").first.wait_for(timeout=PATIENCE)
    page.mouse.move(box["x"] + 400, box["y"] + 90)
    page.mouse.down()
    page.mouse.move(box["x"] + 520, box["y"] + 110, steps=5)
    page.mouse.up()
    page.wait_for_timeout(500)
    low, high = figure.evaluate("f => f._fullLayout.xaxis.range")
    assert high - low < 1500, "a drag zooms and does not pan"
    page.close()


def test_a_click_on_a_line_leads_to_its_window_and_back_leads_to_the_star(
    address: str, chrome: sync_api.Browser
) -> None:
    page = opened(chrome, viewport={"width": 1280, "height": 720})
    page.goto(f"{address}/?star=simulated:SIM13&snr=9&methods=wavelet&frame=rest")
    settled(page)
    figure = page.locator(".js-plotly-plot").first
    box = figure.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 500, box["y"] + 150)  # beside all lines: the control
    page.wait_for_timeout(1500)
    assert "/lines" not in page.url

    def arrived(name: str) -> None:
        page.wait_for_url("**/lines**", timeout=PATIENCE)
        settled(page)
        first = page.locator(".js-plotly-plot .annotation-text").first
        assert first.text_content().startswith(f"▸ {name}")
        assert "star=simulated%3ASIM13" in page.url
        assert f"window={name.replace(' ', '+')}" in page.url

    x, y = figure.evaluate(AT, ["xaxis", 6564.6, "yaxis5", 0.3])
    page.mouse.click(box["x"] + x, box["y"] + y)
    arrived("H alpha")
    page.get_by_role("link", name="Star").click()
    page.wait_for_function("document.querySelectorAll('.js-plotly-plot').length === 2", timeout=PATIENCE)
    settled(page)
    assert "/lines" not in page.url, "one click is one way"
    windows = page.locator(".js-plotly-plot").nth(1)
    box = windows.bounding_box()
    assert box is not None
    x, y = windows.evaluate(AT, ["xaxis2", 5180.0, "yaxis2", 0.9])
    page.mouse.click(box["x"] + x, box["y"] + y)
    arrived("Mg b")
    page.close()


def test_an_upload_is_shown_and_a_bad_one_is_a_sentence(
    address: str, chrome: sync_api.Browser, tmp_path: Path
) -> None:
    page = opened(chrome, viewport={"width": 1280, "height": 720})
    page.goto(address)
    settled(page)
    page.get_by_role("button", name="Upload").click()
    (tmp_path / "bad.fits").write_bytes(b"no FITS at all")
    files = [str(library.BUNDLED / "sim-02.fits.gz"), str(tmp_path / "bad.fits")]
    page.locator("input[type=file]").set_input_files(files)
    page.wait_for_url("**star=upload**", timeout=PATIENCE)
    page.locator("[data-testid=stAlert]").wait_for(timeout=PATIENCE)  # comes with the answers, after the link
    settled(page)
    assert page.locator("[data-testid=stAlert]").count() == 1
    assert "bad.fits" in page.locator("[data-testid=stAlert]").inner_text()
    assert page.get_by_text("Traceback").count() == 0
    assert page.locator(".js-plotly-plot").count() == 2
    page.close()


def test_an_upload_of_two_gigabytes_is_a_sentence_and_stays_where_it_is(
    address: str, chrome: sync_api.Browser, tmp_path: Path
) -> None:
    page = opened(chrome, viewport={"width": 1280, "height": 720})
    page.goto(address)
    settled(page)
    star = page.url
    with (tmp_path / "huge.fits").open("wb") as file:
        file.truncate(2 * 2**30)  # takes no room on disk
    page.get_by_role("button", name="Upload").click()
    page.locator("input[type=file]").set_input_files(str(tmp_path / "huge.fits"))
    page.get_by_text("must be 64").wait_for(timeout=PATIENCE)
    assert page.url == star
    assert page.locator(".js-plotly-plot").count() == 2
    page.close()


def test_a_path_in_the_url_reads_nothing(address: str, chrome: sync_api.Browser) -> None:
    page = opened(chrome, viewport={"width": 1280, "height": 720})
    page.goto(f"{address}/?star=/etc/passwd&folder=/etc")
    settled(page)
    assert "star that is not here" in page.locator("[data-testid=stAlert]").inner_text()
    for figure in page.locator(".js-plotly-plot").all():
        box = figure.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= 720, "a bad link must not push the lines off the screen"
    page.get_by_role("link", name="Models and data").click()
    page.get_by_role("tab", name="What you see").click()
    page.get_by_text("What it does not show").wait_for(timeout=PATIENCE)
    page.get_by_role("tab", name="Data and cache").click()
    page.get_by_text("Folder: 1").wait_for(timeout=PATIENCE)
    page.close()
