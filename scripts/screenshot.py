"""Takes pictures of the dashboard: its own server, a headless chromium, one PNG or one of every page and theme."""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parent.parent
SCREENS = ROOT / "docs" / "screens"
FIRST = "star"  #: the page without a path
LIMIT = 250_000  #: bytes of a picture: what a repository bears
#: what a page shows while it is not whole
BUSY = ", ".join(f"[data-testid={name}]" for name in ("stStatusWidget", "stSkeleton", "stSpinner", "stProgress"))
BROWSER = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@contextmanager
def server(folder: str | None = None, wait: float = 60.0, cache: str | None = None) -> Iterator[str]:
    """The dashboard on a free port of this machine, its address; gone afterwards.

    Args:
        folder: of FITS files, named to the server at its start.
        wait: seconds until it must answer.
        cache: folder for the answers it keeps; this system's own by default.

    Raises:
        ValueError: it does not answer in time.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {key: value for key, value in os.environ.items() if key != "TRUELINE_FOLDER"}
    if folder:
        environment["TRUELINE_FOLDER"] = str(Path(folder).resolve())
    if cache:
        environment["TRUELINE_CACHE"] = cache
    command = [sys.executable, "-m", "streamlit", "run", "app/main.py", "--server.address", "127.0.0.1",
               "--server.port", str(port), "--server.headless", "true", "--server.fileWatcherType", "none"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + wait
        while True:
            try:
                with urllib.request.urlopen(f"{address}/_stcore/health", timeout=2):
                    break
            except OSError as error:
                if process.poll() is not None or time.monotonic() > until:
                    raise ValueError(f"the dashboard does not answer at {address}; try `make app`.") from error
                time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        process.wait(10)


def pages() -> list[str]:
    """Paths of all pages, the first one's first."""
    names = sorted(file.stem for file in (ROOT / "app" / "views").glob("*.py") if file.stem not in ("__init__", FIRST))
    return [FIRST, *names]


def settled(page: Page, wait: float = 300.0) -> None:
    """Wait until a page is whole: nothing runs, nothing is awaited, no answer is still being made.

    Raises:
        ValueError: it is not within `wait` seconds.
    """
    page.wait_for_selector("[data-testid=stMainBlockContainer] :is(.js-plotly-plot .main-svg, [role=tab], h3, h5)",
                           timeout=1000 * wait, state="attached")
    until, quiet = time.monotonic() + wait, 0
    while quiet < 4:  # two seconds: between two answers a page is quiet for a moment too
        page.wait_for_timeout(500)
        quiet = 0 if page.locator(BUSY).count() else quiet + 1
        if time.monotonic() > until:
            raise ValueError(f"{page.url} is not whole after {wait:.0f} s; give it more time, or fewer methods.")


def shoot(browser: Browser, url: str, out: Path, dark: bool, size: tuple[int, int], scale: float = 1.0) -> None:
    """One picture of one page."""
    page = browser.new_page(viewport={"width": size[0], "height": size[1]}, device_scale_factor=scale,
                            color_scheme="dark" if dark else "light", reduced_motion="reduce")
    page.goto(url)
    settled(page)
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)  # fonts and the last layout
    page.screenshot(path=str(out))
    page.close()
    slim(out)


def slim(file: Path, limit: int = LIMIT) -> None:
    """Write a PNG with a palette where it is larger than `limit` bytes: flat colours lose nothing that one sees.

    Raises:
        ValueError: it is too large all the same.
    """
    for colours in (256, 128, 64):
        if file.stat().st_size <= limit:
            return
        picture = Image.open(file).convert("RGB")
        picture.quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(file, optimize=True)
    if file.stat().st_size > limit:
        raise ValueError(f"{file} has {file.stat().st_size} bytes with a palette of 64 colours and may have {limit}; "
                         "take a smaller --size or --scale.")


def main(argv: list[str] | None = None) -> int:
    """`python -m scripts.screenshot OUT.png`, or `--all`: every page, light and dark, into docs/screens/."""
    parser = argparse.ArgumentParser(prog="python -m scripts.screenshot", description=__doc__)
    parser.add_argument("out", type=Path, nargs="?", help="the PNG to write; with --all a folder")
    parser.add_argument("--all", action="store_true", help="every page, light and dark, into docs/screens/ or OUT")
    parser.add_argument("--folder", help="folder of FITS files for the server")
    parser.add_argument("--query", default="", help="what follows the ? of the URL, as in 'star=simulated:SIM01&snr=5'")
    parser.add_argument("--page", default="", help="a page's path, as in 'about'; Star by default; --all: it alone")
    parser.add_argument("--dark", action="store_true", help="dark instead of light")
    parser.add_argument("--size", default="1280x720", help="WIDTHxHEIGHT in pixels (default: %(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="device pixels per pixel (default: %(default)s)")
    given = parser.parse_args(argv)
    if not (given.all or given.out):
        parser.error("give the PNG to write, or --all")
    from playwright.sync_api import sync_playwright  # of the extra `test`; --help must work without it

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        print("No chromium on this machine; on Debian: apt install chromium.", file=sys.stderr)
        return 1
    width, height = (int(number) for number in given.size.split("x"))
    if given.all:
        folder = given.out or SCREENS
        folder.mkdir(parents=True, exist_ok=True)
        asked = [(name, dark, folder / f"{name}_{'dark' if dark else 'light'}.png")
                 for name in pages() if given.page in ("", name) for dark in (False, True)]
    else:
        asked = [(given.page or FIRST, given.dark, given.out)]
    with server(given.folder) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=BROWSER)
        for name, dark, out in asked:
            path = "" if name == FIRST else name
            shoot(browser, f"{address}/{path}?{given.query}", out, dark, (width, height), given.scale)
            print(f"{out}: {out.stat().st_size // 1000} kB", flush=True)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
