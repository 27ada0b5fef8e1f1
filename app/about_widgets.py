"""Tables and buttons of page Models and data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import streamlit as st

from app import resources, widgets

_GAP = (
    "Held-out real stars with white noise: rms error in units of the continuum, and pixels inside the 68 % interval, "
    "under priors of *synthetic* spectra alone, *physics* (with what real stars have beyond it), components learned "
    "from *real* stars alone, and *both* kinds, which is what ships (docs/results.md).")


def reality_gap(table: Callable[[], pd.DataFrame]) -> None:
    """Each prior on held-out real stars, by S/N."""
    try:
        gap = table()
    except ValueError as error:
        widgets.problems([str(error)])
        return
    stars = gap["stars"].max()
    st.dataframe(gap.drop(columns="stars"), hide_index=True)
    st.caption(f":small[{stars} stars. {_GAP}]")


def models(table: pd.DataFrame, card: Callable[[str], dict[str, Any]]) -> None:
    """What ships, a row a file; the card of one of them in full."""
    if table.empty:
        st.info("There is no file in checkpoints/; take it from the repository (git checkout checkpoints).")
        return
    if changed := list(table.loc[table["state"] == "CHANGED", "file"]):
        widgets.problems([f"{', '.join(changed)} has another SHA-256 than the record; take the file from the "
                          "repository again (git checkout checkpoints)."])
    st.markdown(f"**{len(table)} files, {table['MB'].sum():.0f} MB**; *as recorded*: the SHA-256 is the one of the "
                "card or of `SHA256SUMS.json`. *losses*: the network's, beside what it had to beat.")
    st.dataframe(table, hide_index=True, height=420,
                 column_config={"MB": st.column_config.NumberColumn(format="%.2f"),
                                "spectra seen": st.column_config.NumberColumn(format="localized"),
                                "stars made": st.column_config.NumberColumn(format="localized")})
    carded = [name for name in table["file"] if card(name)]
    if carded:
        st.json(card(st.selectbox("Card of", carded, key="card")), expanded=False)


def kept() -> None:
    """Answers kept on disk: how much they take, where, and a button that forgets them."""
    taken, allowed, folder, number = resources.cache_state()
    st.markdown(f"**{number} answers, {taken / 1e6:.0f} of at most {allowed / 1e6:.0f} MB**, kept in this folder. The "
                "same question again, also after a restart, is answered from there.")
    st.code(str(folder), language=None)
    if st.button("Forget all answers", icon=":material/delete:", key="forget", help="Of every visitor of this server"):
        resources.clear_cache()
        st.rerun()
