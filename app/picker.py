"""Which of the stars are in the list: by type, source, release and S/N."""

from __future__ import annotations

import math
from collections.abc import Mapping

from streamlit.delta_generator import DeltaGenerator

from app.shown import Star

_LEVELS = (0, 5, 10, 15, 20, 30, 50, 100, 200, 1000)
_TYPES = "OBAFGKM"


def kind(star: Star) -> str:
    """The letter of its spectral type, 'other' where it has none."""
    text = str(star.facts.get("subclass") or "").strip()
    return text[0] if text[:1] and text[0] in _TYPES else "other"


def release(star: Star) -> str:
    """The data release it is from, 'unknown' where its file does not say."""
    return str(star.facts.get("release") or "unknown")


def kept(stars: Mapping[str, Star], types: list[str], sources: list[str], releases: list[str], low: float,
         high: float) -> list[str]:
    """Keys of the stars that meet every filter; an empty one lets all through, and so does an S/N nobody knows."""
    return [key for key, star in stars.items()
            if (not types or kind(star) in types) and (not sources or star.source in sources)
            and (not releases or release(star) in releases)
            and (not math.isfinite(star.own) or low <= star.own <= high)]


def stars_in_list(stars: Mapping[str, Star], place: DeltaGenerator, current: str | None) -> list[str]:
    """The filters, in a drawer, and the keys they leave; the star that is shown is always among them."""
    drawer = place.popover("Filter", icon=":material/filter_list:", width="stretch")
    types = drawer.multiselect("Spectral type", sorted({kind(star) for star in stars.values()}), key="only_types",
                               placeholder="all")
    sources = drawer.multiselect("Source", sorted({star.source for star in stars.values()}), key="only_sources",
                                 placeholder="all")
    releases = drawer.multiselect("Data release", sorted({release(star) for star in stars.values()}),
                                  key="only_releases", placeholder="all")
    low, high = drawer.select_slider("Own S/N_g", _LEVELS, (_LEVELS[0], _LEVELS[-1]), key="only_snr")
    keys = kept(stars, types, sources, releases, float(low), math.inf if high == _LEVELS[-1] else float(high))
    drawer.caption(f"{len(keys)} of {len(stars)} stars" + ("" if keys else ": none; take a filter away"))
    return keys if current is None or current in keys else [current, *keys]
