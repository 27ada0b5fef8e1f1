"""Download of LAMOST low-resolution spectra by obsid and release: one at a time, resumable, checked by reading."""

from __future__ import annotations

import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import quote

import pandas as pd
from tqdm import tqdm

from core.data import lamost
from core.data.lamost_layouts import MAX_BYTES

BASE_URL = "https://www.lamost.org"
USER_AGENT = "Trueline (open-source spectrum denoiser; one connection, polite)"

#: The public version of each release; another is asked for as "dr10/v1.0". Each holds the observations of all before
#: it; DR7 and older ran on hosts of their own.
VERSIONS = {"dr8": "v2.0", "dr9": "v2.0", "dr10": "v2.0", "dr11": "v2.0"}

_CHUNK = 2**16
_AGAIN = (408, 425, 429, 500, 502, 503, 504)  # what a server says when the same request may succeed later


@dataclass(frozen=True)
class Manners:
    """How often the survey's server is asked.

    Args:
        delay: pause between two files [s].
        attempts: requests for one file before it is given up.
        backoff: pause after the first failure [s], doubled after each.
        longest: the longest pause [s], also where the server asks for more by Retry-After (then the file is given up).
        timeout: of a silent connection [s].
    """

    delay: float = 1.0
    attempts: int = 5
    backoff: float = 2.0
    longest: float = 120.0
    timeout: float = 60.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or min(self.delay, self.backoff, self.longest) < 0 or not self.timeout > 0:
            raise ValueError("pauses must not be negative, timeout must be positive, attempts at least 1.")


def url_of(obsid: str, release: str, base_url: str = BASE_URL, token: str | None = None) -> str:
    """Where the survey serves a spectrum.

    Args:
        obsid: LAMOST's number of the observation.
        release: "dr10", or with its version "dr10/v1.0".
        base_url: of the service.
        token: of a registered user, for releases that are not public yet.

    Raises:
        ValueError: an obsid that is not a number, an unknown release, or an address that is not of the web.
    """
    if not base_url.startswith(("http://", "https://")):
        raise ValueError(f"the address {base_url!r} is not of the web; let it start with https://.")
    if not re.fullmatch(r"[1-9][0-9]{0,11}", obsid):
        raise ValueError(f"obsid {obsid!r} is not a number; give the observation's obsid, such as 101001.")
    release = release.lower()
    if release in VERSIONS:
        release = f"{release}/{VERSIONS[release]}"
    if not re.fullmatch(r"dr[0-9]+/v[0-9.]+", release):
        raise ValueError(f"release {release!r} is unknown; give one of {', '.join(VERSIONS)}, or as dr10/v1.0.")
    return f"{base_url.rstrip('/')}/{release}/spectrum/fits/{obsid}" + (f"?token={quote(token)}" if token else "")


def check(path: Path, obsid: str) -> None:
    """Read a downloaded file and compare its obsid.

    Raises:
        ValueError: it cannot be read, or is another observation.
    """
    *_, meta = lamost.parse(path)
    if meta["obsid"] != obsid:
        raise ValueError(f"{path} holds obsid {meta['obsid'] or 'none'}, not {obsid}; ask for another release.")


def _wait_asked(error: urllib.error.HTTPError) -> float:
    """Seconds of the header Retry-After (a number or a date); 0 without one."""
    value = error.headers.get("Retry-After", "")
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return 0.0


def _transfer(url: str, part: Path, timeout: float) -> None:
    """Get the rest of `part`; raises OSError or HTTPException when the connection ends early."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": USER_AGENT} | ({"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout) as answer:
        # a server may ignore Range and send everything (200), or send another range than asked: then start anew
        resumed = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if answer.status == 206 and not resumed:
            part.unlink()
            raise ConnectionError("the server sent another part of the file than was asked for")
        size = have if resumed else 0
        expected = answer.headers.get("Content-Length")
        total = size + int(expected) if expected and expected.isdigit() else None
        with part.open("ab" if resumed else "wb") as out:
            while size <= MAX_BYTES and (chunk := answer.read(_CHUNK)):
                size += len(chunk)
                out.write(chunk)
    if size > MAX_BYTES:
        part.unlink()
        raise ValueError(f"the server sent more than {MAX_BYTES // 2**20} MB, which is not one spectrum; check the "
                         "address.")
    if total is not None and size < total:
        raise ConnectionError(f"the connection ended after {size} of {total} bytes")


def _stem(obsid: str, release: str) -> str:
    return f"{release.lower().replace('/', '-')}-{obsid}"


def _there(obsid: str, release: str, folder: Path) -> Path | None:
    """The file of an earlier download that can still be read; a damaged one counts as missing and is replaced."""
    for path in (folder / f"{_stem(obsid, release)}.fits.gz", folder / f"{_stem(obsid, release)}.fits"):
        if path.exists():
            try:
                check(path, obsid)
            except ValueError:
                continue
            return path
    return None


def fetch(obsid: str, release: str, folder: str | Path, *, base_url: str = BASE_URL, token: str | None = None,
          manners: Manners | None = None, sleep: Callable[[float], None] = time.sleep) -> Path:
    """One spectrum as folder/<release>-<obsid>.fits.gz (or .fits); kept as .part until it is whole and has been read.

    A file that is there and can be read is not asked for again; a .part is continued where it ended.

    Args:
        obsid: LAMOST's number of the observation.
        release: "dr10", or with its version "dr10/v1.0".
        folder: where to; made if missing.
        base_url: of the service.
        token: of a registered user, for releases that are not public yet.
        manners: pauses and attempts.
        sleep: how to pause.

    Raises:
        ValueError: the server does not have it, keeps failing, or sends what is not this spectrum.
    """
    url, folder = url_of(obsid, release, base_url, token), Path(folder)
    if there := _there(obsid, release, folder):
        return there
    folder.mkdir(parents=True, exist_ok=True)
    stem = _stem(obsid, release)
    part = folder / f"{stem}.part"
    _persist(url, part, obsid, manners or Manners(), sleep)
    try:
        check(part, obsid)
    except ValueError as err:
        part.unlink()
        raise ValueError(f"what the server sent for obsid {obsid} was refused: {err}") from err
    with part.open("rb") as opened:
        final = folder / (f"{stem}.fits.gz" if opened.read(2) == b"\x1f\x8b" else f"{stem}.fits")
    os.replace(part, final)
    return final


def _persist(url: str, part: Path, obsid: str, manners: Manners, sleep: Callable[[float], None]) -> None:
    """Transfer until whole, with growing pauses, or say why not."""
    for attempt in range(manners.attempts):
        asked = 0.0
        reason: OSError | http.client.HTTPException
        try:
            return _transfer(url, part, manners.timeout)
        except urllib.error.HTTPError as err:
            if err.code == 416 and part.exists():
                return None  # nothing left to send: the part is whole, or of another file; reading it will tell
            if err.code not in _AGAIN:
                hint = "the release may need a token" if err.code in (401, 403) else "check obsid and release"
                raise ValueError(f"the server answers {err.code} {err.reason} for obsid {obsid}; {hint}.") from err
            asked, reason = _wait_asked(err), err
            err.close()
        except (OSError, http.client.HTTPException) as err:
            reason = err
        pause = max(asked, min(manners.backoff * 2**attempt, manners.longest))
        if attempt + 1 == manners.attempts or asked > manners.longest:
            wait = f" and asks to wait {asked:.0f} s" if asked > manners.longest else ""
            raise ValueError(f"obsid {obsid} could not be downloaded ({reason}){wait}; what came is kept, try again "
                             "later.") from reason
        sleep(pause)


def fetch_all(obsids: Iterable[str], release: str, folder: str | Path, *, base_url: str = BASE_URL,
              token: str | None = None, manners: Manners | None = None, progress: bool = True,
              sleep: Callable[[float], None] = time.sleep) -> tuple[list[Path], pd.DataFrame]:
    """Many spectra over one connection at a time, with a pause between them; a failure does not stop the others.

    Returns:
        The files, and a table of obsid and reason for those that failed.

    Raises:
        ValueError: no obsids, or an unknown release.
    """
    manners = manners or Manners()
    wanted = list(dict.fromkeys(obsids))
    if not wanted:
        raise ValueError("no obsids were given; name them by --obsid or --list.")
    url_of("1", release, base_url)
    files, refused = [], []
    asked = False
    for obsid in tqdm(wanted, unit="file", disable=not progress):
        if there := _there(obsid, release, Path(folder)):
            files.append(there)
            continue
        if asked:
            sleep(manners.delay)
        asked = True
        try:
            files.append(fetch(obsid, release, folder, base_url=base_url, token=token, manners=manners, sleep=sleep))
        except ValueError as err:
            refused.append((obsid, str(err)))
    return files, pd.DataFrame(refused, columns=["obsid", "reason"])
