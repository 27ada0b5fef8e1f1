"""Page About: what the other page shows and what it does not, where spectra come from, what was refused."""

from __future__ import annotations

import streamlit as st

from app import resources, widgets

widgets.problems(widgets.said())
catalogue = widgets.catalogue()
words, files = st.columns([1, 1], gap="large")
words.markdown(
    """
### What you see
**Trueline** shows a noisy stellar spectrum and what different methods make of it, beside the noise of every pixel.
A line that a method draws is not a line that was measured: look at the residual first.

- **Observed** is grey, with a band of one standard deviation. Hatched pixels were not measured at all; whatever a
  method shows there is its guess.
- **Flux** is in units of a smooth curve through the observation itself. The CSV file holds that curve too.
- **S/N** is LAMOST's S/N_g: the median of flux over sigma in 4100-5300 Angstrom. A lower one is made from the star's
  own spectrum by adding noise like its own; a higher one cannot be made. Beside a degraded **observed** star stands its
  own spectrum in dark grey: better data, not truth.
- **Residual** is (observed - method) / sigma. Right noise gives 68 % within 1, and 0.3 % beyond 3. Only points beyond
  2 are coloured.
- **chi2** is its mean square over measured pixels: 1 for the truth. A method below 1 has kept some of the noise; the
  method `noisy` keeps all of it and has 0. 1 is necessary, not sufficient: most pixels hold no line, and a method that
  erases lines can have it. Hence chi2 and rms also inside the zoomed lines.
- **σ** is the quoted one times a scale measured on one LAMOST plate of 2011. In the red arm, sky residuals that all
  stars of a plate share add 1 to 2 σ, which σ does not hold: not every red point beyond 3 is a line.

### What it does not show
The methods of today are classical filters. They have **no error bar**: nothing on the page says how wrong they are, and
where truth is unknown, nobody knows. On simulated stars truth is known, but simulated stars are simpler than real ones.
"""
)
with files:
    st.markdown("### Where the spectra come from")
    st.markdown("The bundled stars are **simulated**: synthetic spectra with LAMOST's noise, in its file layout.\n"
                "Your own come by upload, or from folders named when the server starts:")
    st.code("streamlit run app/main.py -- --folder PATH\nTRUELINE_FOLDER=PATH make app", language="sh")
    widgets.sources(catalogue, resources.folders())
