"""The dashboard by the clock, in a real browser and in one run: `python -m scripts.benchmark app`.

Starts the server itself, with an empty cache folder of its own, and writes results/benchmark_app.csv: what is wanted
and what was measured. It wants a quiet machine of two cores and Debian's chromium. Times are the browser's: from a key
pressed to the frame that shows the answer, and, as the server's own, from the message that asks to the one that says
the page is done.
"""

from __future__ import annotations

import argparse
import base64
import math
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core import pipeline
from core.data import library, noise
from scripts.screenshot import BROWSER, server

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "results" / "benchmark_app.csv"
SESSIONS = 20
#: those of a first visit, and a filter, whose numbers are made anew here and looked for on the page
METHODS = "wavelet,mixture,supervised,exact"
_PATIENCE = 600_000  # milliseconds until something must have come
_REPEATS = 7

#: what the page shows, as one string: the figure's numbers at a few places of every trace
_SHOWN = """(() => { const g = document.querySelector('.js-plotly-plot'); return g && g._fullData ? g._fullData.map(
    t => t.y && t.y.length > 2000 ? [...t.y.slice(1500, 1504)].join() : '').join(';') : ''; })()"""
#: is the answer of every method of the address in the figure, and nothing being made? Between two answers a page may be
#: without progress for any time on a slow machine; a trace's name says whether it is the answer or the one before
_ANSWERED = """((wanted) => { const g = document.querySelector('.js-plotly-plot');
    const names = g && g._fullData ? g._fullData.map(t => t.name || '') : [];
    return wanted.every(method => names.some(name => name.startsWith(method + ' ('))); })"""
_ALL = "(new URLSearchParams(location.search).get('methods') || '').split(',')"
_WHOLE = f"{_ANSWERED}({_ALL}) && !document.querySelector('[data-testid=stProgress]')"
#: notes when a key was pressed, when the figure changed after it, when progress came, and when the answers were in it
_WATCH = """() => {
    const shown = () => SHOWN;
    window.marks = {};
    addEventListener('keydown', () => { window.marks = {pressed: performance.now(), before: shown()}; }, true);
    const look = () => {
        const m = window.marks;
        if (m.pressed !== undefined) {
            if (m.painted === undefined && shown() !== m.before) m.painted = performance.now();
            if (m.progress === undefined && document.querySelector('[data-testid=stProgress]'))
                m.progress = performance.now();
            if (m.painted !== undefined && m.exact === undefined && ANSWERED(['exact'])) m.exact = performance.now();
            if (m.painted !== undefined && m.answered === undefined && WHOLE) m.answered = performance.now();
        }
        setTimeout(look, 50);  // not each frame: the page would be painted without end
    };
    look();
}""".replace("SHOWN", _SHOWN).replace("WHOLE", _WHOLE).replace("ANSWERED", _ANSWERED)


@dataclass
class Page:
    """One tab: its page, and what the server and it told each other, with the browser's times."""

    page: Any
    sent: list[float] = field(default_factory=list)
    finished: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, context: Any) -> Page:
        """A new tab that listens to its socket."""
        from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

        out = cls(context.new_page())
        session = context.new_cdp_session(out.page)
        session.send("Network.enable")
        session.on("Network.webSocketFrameSent", lambda event: out.sent.append(event["timestamp"]))

        def received(event: Any) -> None:
            message = ForwardMsg.FromString(base64.b64decode(event["response"]["payloadData"]))
            if message.WhichOneof("type") == "script_finished":
                out.finished.append(event["timestamp"])

        session.on("Network.webSocketFrameReceived", received)
        return out

    def open(self, address: str) -> float:
        """Seconds until the first figure is there."""
        begun = time.monotonic()
        self.page.goto(address)
        self.page.wait_for_selector(".js-plotly-plot .scatterlayer", timeout=_PATIENCE)
        seconds = time.monotonic() - begun
        self.page.evaluate(_WATCH)
        return seconds

    def rest(self) -> None:
        """Until all answers are there and nothing is being made any longer."""
        for _ in range(2):
            self.page.wait_for_function(f"() => {_WHOLE}", timeout=_PATIENCE)
            self.page.wait_for_timeout(700)

    def press(self, key: str, until: str) -> dict[str, float]:
        """Seconds from a key on the S/N slider to each mark, until that mark; and the server's own."""
        slider = self.page.get_by_role("slider").first
        slider.focus()
        self.sent.clear()
        self.finished.clear()
        slider.press(key)
        self.page.wait_for_function(f"window.marks.{until} !== undefined", timeout=_PATIENCE)
        self.page.wait_for_timeout(300)
        marks = self.page.evaluate("window.marks")
        out = {name: (marks[name] - marks["pressed"]) / 1000 for name in ("painted", "progress", "exact", "answered")
               if name in marks}
        return out | ({"server": self.finished[0] - self.sent[0]} if self.sent and self.finished else {})


@dataclass
class Report:
    """What was measured, beside what is wanted; written to `table` row by row: what is broken off is not lost.

    Args:
        table: file, None: no file; about: further columns.
    """

    table: Path | None = None
    about: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, what: str, measured: float, unit: str, wanted: float | None = None) -> None:
        """A row; without a figure that is wanted it is for information."""
        meets = "" if wanted is None else "yes" if measured < wanted else "NO"
        self.rows.append({"what": what, "wanted": wanted, "measured": round(measured, 3), "unit": unit, "meets": meets})
        if self.table is not None:
            pd.DataFrame(self.rows).assign(**self.about).to_csv(self.table, index=False)
        print(f"{what}: {measured:.3g} {unit}" + (f", wanted below {wanted:g}: {meets}" if meets else ""), flush=True)


@contextmanager
def started(cache: str, browser: Any) -> Iterator[tuple[str, Any]]:
    """A server with that cache folder, and a browser's context that knows nothing yet."""
    with server(cache=cache) as address:
        context = browser.new_context(viewport={"width": 1280, "height": 720})
        yield address, context
        context.close()


def memory(address: str) -> float:
    """Memory [GB] of the server at the address and of the processes it started."""
    port, root = address.rpartition(":")[2], ""
    parents: dict[str, str] = {}
    sizes: dict[str, float] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[folder.name] = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
            sizes[folder.name] = int(status.get("VmRSS", "0").split()[0]) / 2**20
            if f"--server.port\0{port}\0" in (folder / "cmdline").read_text():
                root = folder.name
        except OSError:  # it ended meanwhile
            continue
    return sum(size for pid, size in sizes.items() if pid == root or parents[pid] == root)


def one_visitor(report: Report, address: str, context: Any) -> None:
    """What one visitor of a server with nothing kept sees."""
    tab = Page.of(context)
    report.add("cold start to the first plot, nothing kept", tab.open(f"{address}/?methods={METHODS}"), "s", 6.0)
    begun = time.monotonic()
    tab.rest()
    report.add("from there to the first answer of all methods", time.monotonic() - begun - 1.4, "s")

    new = tab.press("ArrowLeft", "answered")
    report.add("new exact posterior of 32 draws", new.get("exact", math.nan), "s", 8.0)
    report.add("new answers of all methods", new["answered"], "s")
    report.add("until its progress is visible", new["progress"], "s", 0.5)
    tab.rest()
    back = [tab.press(key, "painted") for _ in range(_REPEATS) for key in ("ArrowRight", "ArrowLeft")]
    report.add("cached view: server", statistics.median(row["server"] for row in back), "s", 0.2)
    report.add("cached view: slowest of 14 on the server", max(row["server"] for row in back), "s")
    report.add("cached view: to paint", statistics.median(row["painted"] for row in back), "s", 1.0)
    tab.page.close()


def while_sampling(report: Report, address: str, context: Any) -> None:
    """The slider while MMPS, the slowest method, is at work, and how soon it lets go."""
    tab = Page.of(context)
    tab.open(f"{address}/?methods=wavelet,mmps&seed=1")
    tab.page.wait_for_function("/calls/.test((document.querySelector('[data-testid=stProgress]') || {}).innerText)",
                               timeout=_PATIENCE)
    drags = [tab.press("ArrowLeft", "painted") for _ in range(3)]
    report.add("slider while MMPS is at work: slowest of 3 to paint", max(row["painted"] for row in drags), "s", 1.0)
    tab.page.locator("[class*=st-key-cancel_] button").first.click()
    begun = time.monotonic()
    tab.page.wait_for_function("!document.querySelector('[data-testid=stProgress]')", timeout=_PATIENCE)
    report.add("cancel until it is gone", time.monotonic() - begun, "s", 1.0)
    tab.page.close()


def together(report: Report, address: str, browser: Any, sessions: int) -> None:
    """So many visitors at once, each with a star, S/N and seed of its own, who must see their own and no other's."""
    stars, _ = library.bundled()
    good = [b for b, own in enumerate(noise.snr(stars)) if own > 12]
    asked = [(good[i % len(good)], 5 + i % 4, i) for i in range(sessions)]
    with ExitStack() as stack:
        tabs = []
        begun = time.monotonic()
        for b, snr, seed in asked:
            context = browser.new_context(viewport={"width": 1280, "height": 720})
            stack.callback(context.close)
            tabs.append(Page.of(context))
            tabs[-1].page.goto(f"{address}/?star=simulated:{stars.stars[b]}&snr={snr}&seed={seed}&methods={METHODS}")
        for tab in tabs:
            tab.page.wait_for_selector(".js-plotly-plot .scatterlayer", timeout=_PATIENCE)
        report.add(f"{sessions} sessions at once: until all have a plot", time.monotonic() - begun, "s")
        most = memory(address)
        for tab in tabs:
            tab.rest()
            most = max(most, memory(address))
        report.add(f"{sessions} sessions at once: until all have all answers", time.monotonic() - begun, "s")
        wrong = sum(not own(tab.page, stars.select([b]), snr, seed)
                    for tab, (b, snr, seed) in zip(tabs, asked, strict=True))
        report.add(f"{sessions} sessions at once: that see another's star or numbers", wrong, "sessions", 1)
        report.add(f"{sessions} sessions at once: memory of server and worker", most, "GB", 4.0)


def own(page: Any, star: Any, snr: float, seed: int) -> bool:
    """True where the page shows this star's name, its noise and its answers."""
    shown = noise.degrade(star, snr, seed)
    live = shown.measured[0]
    expected = {"observed": np.where(live, shown.flux[0], np.nan)}
    expected["wavelet"] = pipeline.reconstruct(shown, "wavelet").mean[0]
    traces = page.evaluate("""[...document.querySelector('.js-plotly-plot')._fullData].filter(
        t => t.y && t.y.length > 3000).map(t => [t.name, [...t.y]])""")
    found = [any(name.startswith(who) and len(y) == len(value)
                 and np.allclose(np.array(y, dtype=float), value, rtol=1e-3, atol=1e-3, equal_nan=True)
                 for name, y in traces) for who, value in expected.items()]
    return all(found) and star.stars[0] in page.inner_text("body") and any("exact" in name for name, _ in traces)


def restarted(report: Report, address: str, context: Any) -> None:
    """The questions of `one_visitor` once more, after a restart: from disk."""
    tab = Page.of(context)
    report.add("cold start to the first plot, answers kept", tab.open(f"{address}/?methods={METHODS}"), "s", 6.0)
    tab.rest()
    kept = tab.press("ArrowLeft", "painted")
    report.add("same question after a restart: server", kept["server"], "s", 0.2)
    report.add("same question after a restart: to paint", kept["painted"], "s", 1.0)
    report.add("same question after a restart: made anew", float("progress" in kept), "answers", 1)
    tab.page.close()


def main(argv: list[str] | None = None) -> int:
    command = argparse.ArgumentParser(prog="python -m scripts.benchmark app", description=__doc__,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--table", type=Path, default=TABLE, help="where it goes (default: %(default)s)")
    command.add_argument("--sessions", type=int, default=SESSIONS, help="at once (default: %(default)s)")
    given = command.parse_args(argv)
    from playwright.sync_api import sync_playwright  # of the extra `test`; --help must work without it

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        print("No chromium on this machine; on Debian: apt install chromium.", flush=True)
        return 1
    busy = os.getloadavg()[0]
    if busy > 0.5:
        print(f"others keep {busy:.1f} cores busy; the seconds want a quiet machine.", flush=True)
    report = Report(given.table, {"load_before": round(busy, 2),
                                  "hardware": f"{os.cpu_count()} cores, {platform.machine()}"})
    with tempfile.TemporaryDirectory() as cache, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=BROWSER)
        with started(cache, browser) as (address, context):
            one_visitor(report, address, context)
            while_sampling(report, address, context)
            together(report, address, browser, given.sessions)
        with started(cache, browser) as (address, context):
            restarted(report, address, context)
        browser.close()
    return int(any(row["meets"] == "NO" for row in report.rows))
