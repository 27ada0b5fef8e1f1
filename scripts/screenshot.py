"""Takes a picture of the dashboard: its own server, a headless chromium, one PNG."""

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

ROOT = Path(__file__).resolve().parent.parent
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
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(10)


def main(argv: list[str] | None = None) -> int:
    """`python -m scripts.screenshot OUT.png`."""
    parser = argparse.ArgumentParser(prog="python -m scripts.screenshot", description=__doc__)
    parser.add_argument("out", type=Path, help="the PNG to write")
    parser.add_argument("--folder", help="folder of FITS files for the server")
    parser.add_argument("--query", default="", help="what follows the ? of the URL, as in 'star=simulated:SIM01&snr=5'")
    parser.add_argument("--page", default="", help="the page's path, as in 'about'; Star by default")
    parser.add_argument("--dark", action="store_true", help="dark instead of light")
    parser.add_argument("--size", default="1280x720", help="WIDTHxHEIGHT in pixels (default: %(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="device pixels per pixel (default: %(default)s)")
    given = parser.parse_args(argv)
    from playwright.sync_api import sync_playwright  # of the extra `test`; --help must work without it

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        print("No chromium on this machine; on Debian: apt install chromium.", file=sys.stderr)
        return 1
    width, height = (int(number) for number in given.size.split("x"))
    with server(given.folder) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=BROWSER)
        page = browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=given.scale,
                                color_scheme="dark" if given.dark else "light")
        page.goto(f"{address}/{given.page}?{given.query}")
        page.wait_for_selector(".js-plotly-plot .scatterlayer" if not given.page else "h3", timeout=60_000)
        page.wait_for_selector("[data-testid=stStatusWidget]", state="detached", timeout=60_000)
        page.wait_for_timeout(1500)  # fonts and the last layout
        # answers of networks come later, under a bar of their own
        page.wait_for_selector("[data-testid=stProgress]", state="detached", timeout=120_000)
        page.wait_for_timeout(500)
        page.screenshot(path=str(given.out))
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
