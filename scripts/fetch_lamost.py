"""Download LAMOST spectra: `python -m scripts.fetch_lamost --release dr10 --obsid 101001,101002 --out folder`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from core.data.lamost_fetch import BASE_URL, VERSIONS, Manners, fetch_all


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every spectrum is there and has been read, 1 when any failed, 2 for a command that makes no sense."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--release", required=True, help=f"{', '.join(VERSIONS)}, or with its version as dr10/v1.0")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--obsid", help="numbers separated by commas")
    which.add_argument("--list", type=Path, help="a text file with one obsid in a line")
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument("--base-url", default=BASE_URL)
    parser.add_argument("--token", help="of a registered user, for releases that are not public yet")
    parser.add_argument("--delay", type=float, default=Manners.delay,
                        help="pause between files [s] (default %(default)s)")
    given = parser.parse_args(arguments)
    try:
        text = given.obsid.replace(",", " ") if given.obsid is not None else given.list.read_text()
        files, refused = fetch_all(text.split(), given.release, given.out, base_url=given.base_url, token=given.token,
                                   manners=Manners(delay=given.delay))
    except (OSError, ValueError) as err:
        parser.error(str(err))
    print(f"{len(files)} spectra in {given.out}")
    if len(refused):
        print(f"{len(refused)} failed:", refused.to_string(index=False), sep="\n", file=sys.stderr)
    return int(len(refused) > 0)


if __name__ == "__main__":
    sys.exit(main())
