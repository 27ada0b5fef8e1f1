"""The downloader against a server on the loopback that cuts, stalls, lies and lacks."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from core.data import lamost_fetch
from core.data.lamost_fetch import Manners, fetch, fetch_all, url_of
from core.data.lamost_write import write
from scripts.fetch_lamost import main

MANNERS = Manners(delay=1.0, attempts=4, backoff=2.0, longest=30.0, timeout=5.0)


class Survey:
    """A survey's server; `plan[obsid]` lists what it does at each request, the last entry for all that follow."""

    def __init__(self, spectra: dict[str, bytes]) -> None:
        self.spectra, self.plan, self.asked, self.ranges = spectra, {}, [], True
        survey = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                survey.answer(self)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        obsid = request.path.split("?")[0].rsplit("/", 1)[1]
        self.asked.append((request.path, dict(request.headers)))
        plan = self.plan.get(obsid, ["send"])
        step = plan.pop(0) if len(plan) > 1 else plan[0]
        if obsid not in self.spectra:
            return request.send_error(404)
        if isinstance(step, tuple):  # an error, and how long to wait
            request.send_response(step[0])
            request.send_header("Retry-After", step[1])
            request.send_header("Content-Length", "0")
            return request.end_headers()
        body = b"<html>please log in</html>" if step == "html" else self.spectra[obsid]
        start = 0
        asked = request.headers.get("Range")
        if asked and self.ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                return request.send_error(416)
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            request.send_response(200)
        request.send_header("Content-Length", str(len(body) - start))
        request.end_headers()
        end = start + (len(body) - start) // 2 if step == "cut" else len(body)
        request.wfile.write(body[start:end])

    def headers(self, number: int) -> dict[str, str]:
        return self.asked[number][1]


@pytest.fixture
def survey(tmp_path, monkeypatch, rng):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    spectra = {}
    for obsid in ("101001", "101002"):
        path = tmp_path / f"{obsid}.fits.gz"
        write(path, 100 + rng.standard_normal(3909), np.ones(3909), "coadd", header={"OBSID": obsid})
        spectra[obsid] = path.read_bytes()
    served = Survey(spectra)
    yield served
    served.server.shutdown()
    served.server.server_close()


@pytest.fixture
def pauses():
    return []


@pytest.fixture
def get(survey, tmp_path, pauses):
    def run(obsid="101001", **changes):
        settings = {"base_url": survey.url, "manners": MANNERS, "sleep": pauses.append} | changes
        return fetch(obsid, "dr10", tmp_path / "out", **settings)

    return run


def test_a_spectrum_arrives_whole_from_the_address_of_its_release(survey, get, pauses):
    path = get()
    assert path.name == "dr10-101001.fits.gz"
    assert path.read_bytes() == survey.spectra["101001"]
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert survey.asked[0][0] == "/dr10/v2.0/spectrum/fits/101001"
    assert "Trueline" in survey.headers(0)["User-Agent"]
    assert pauses == []


def test_what_is_there_and_can_be_read_is_not_asked_for_again(survey, get):
    path = get()
    assert get() == path
    assert len(survey.asked) == 1
    path.write_bytes(path.read_bytes()[:2000])  # the control: what can no longer be read is
    assert get().read_bytes() == survey.spectra["101001"]
    assert len(survey.asked) == 2


def test_a_cut_connection_is_resumed_where_it_ended(survey, get, pauses):
    survey.plan["101001"] = ["cut", "cut", "send"]
    size = len(survey.spectra["101001"])
    assert get().read_bytes() == survey.spectra["101001"]
    half = size // 2
    assert survey.headers(1)["Range"] == f"bytes={half}-"
    assert survey.headers(2)["Range"] == f"bytes={half + (size - half) // 2}-"
    assert pauses == [2.0, 4.0]


def test_a_run_that_gave_up_is_resumed_by_the_next(survey, get, tmp_path):
    survey.plan["101001"] = ["cut"]
    with pytest.raises(ValueError, match="what came is kept"):
        get(manners=Manners(attempts=1))
    assert (tmp_path / "out" / "dr10-101001.part").stat().st_size == len(survey.spectra["101001"]) // 2
    survey.plan["101001"] = ["send"]
    assert get().read_bytes() == survey.spectra["101001"]
    assert "Range" in survey.headers(1)


def test_a_whole_part_is_kept_when_nothing_is_left_to_send(survey, get, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "dr10-101001.part").write_bytes(survey.spectra["101001"])
    assert get().read_bytes() == survey.spectra["101001"]


def test_a_server_that_ignores_ranges_sends_everything_anew(survey, get):
    survey.ranges = False
    survey.plan["101001"] = ["cut", "send"]
    assert get().read_bytes() == survey.spectra["101001"]


def test_a_busy_server_is_given_the_time_it_asks_for(survey, get, pauses):
    survey.plan["101001"] = [(503, "7"), (429, "1"), "send"]
    assert get().exists()
    assert pauses == [7.0, 4.0]  # no sooner than asked, and no sooner than the growing pause


def test_pauses_grow_to_a_cap_and_then_it_gives_up(survey, get, pauses):
    survey.plan["101001"] = [(500, "")]
    with pytest.raises(ValueError, match="101001 could not be downloaded"):
        get(manners=Manners(attempts=6, backoff=2.0, longest=10.0))
    assert pauses == [2.0, 4.0, 8.0, 10.0, 10.0]


def test_a_server_that_asks_for_too_much_time_is_left_alone(survey, get, pauses):
    survey.plan["101001"] = [(503, "3600")]
    with pytest.raises(ValueError, match="asks to wait 3600 s"):
        get()
    assert (pauses, len(survey.asked)) == ([], 1)


def test_a_missing_spectrum_is_not_asked_for_twice(survey, get):
    with pytest.raises(ValueError, match="404 Not Found for obsid 7; check obsid and release"):
        get("7")
    assert len(survey.asked) == 1


@pytest.mark.parametrize("what", ["html", "other", "cut short"])
def test_what_is_not_this_spectrum_is_refused_and_not_kept(survey, get, tmp_path, what):
    if what == "html":
        survey.plan["101001"] = ["html"]
    else:
        other = survey.spectra["101002"]
        survey.spectra["101001"] = other if what == "other" else other[:3000]
    with pytest.raises(ValueError, match={"html": "not a FITS file", "other": "holds obsid 101002, not 101001",
                                          "cut short": "cut off"}[what]):
        get()
    assert list((tmp_path / "out").iterdir()) == []


def test_more_than_a_spectrum_can_be_is_refused(survey, get, monkeypatch, tmp_path):
    monkeypatch.setattr(lamost_fetch, "MAX_BYTES", 1000)
    with pytest.raises(ValueError, match="not one spectrum"):
        get()
    assert list((tmp_path / "out").iterdir()) == []


def test_a_failure_does_not_stop_the_others_and_files_are_a_pause_apart(survey, pauses, tmp_path):
    def run():
        return fetch_all(["101001", "7", "101001", "101002"], "dr10", tmp_path / "out", base_url=survey.url,
                         manners=MANNERS, progress=False, sleep=pauses.append)

    files, refused = run()
    assert [f.name for f in files] == ["dr10-101001.fits.gz", "dr10-101002.fits.gz"]
    assert list(refused.obsid) == ["7"]
    assert pauses == [1.0, 1.0]
    run()
    assert pauses == [1.0, 1.0]  # what is there costs the server nothing, so no pause


def test_a_token_is_sent_only_when_given():
    assert url_of("1", "DR11/v1.1", token="a b") == "https://www.lamost.org/dr11/v1.1/spectrum/fits/1?token=a%20b"
    assert "token" not in url_of("1", "dr9")


@pytest.mark.parametrize(("obsid", "release", "base", "fact"), [
    ("../../etc", "dr10", "https://a", "not a number"), ("", "dr10", "https://a", "not a number"),
    ("1", "dr99", "https://a", "release 'dr99'"), ("1", "dr10/../x", "https://a", "release"),
    ("1", "dr10", "file:///etc", "not of the web")])
def test_addresses_that_make_no_sense_are_refused(obsid, release, base, fact):
    with pytest.raises(ValueError, match=fact):
        url_of(obsid, release, base)


def test_manners_cannot_be_bad():
    with pytest.raises(ValueError, match="negative"):
        Manners(delay=-1)


def test_the_script_returns_0_when_all_came_and_1_when_any_failed(survey, tmp_path, capsys):
    common = ["--release", "dr10", "--out", str(tmp_path / "out"), "--base-url", survey.url, "--delay", "0"]
    assert main(["--obsid", "101001,101002", *common]) == 0
    names = tmp_path / "obsids.txt"
    names.write_text("101001\n7\n")
    assert main(["--list", str(names), *common]) == 1
    assert "404" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["--list", str(tmp_path / "none.txt"), *common])
