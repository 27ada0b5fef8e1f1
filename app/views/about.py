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
A band is right for stars like those the methods were made from: synthetic ones, and real ones of public libraries. A
line that is not in there, as of a rare star, can be missing from every draw. Where truth is
unknown, look at the residual.
"""
)
files.markdown(
    """
### What the methods are
- **Savitzky-Golay, wavelet, PCA** are filters without an error bar: nothing says how wrong they are.
- **Wiener, mixture** know how stars vary (one Gaussian; a mixture that finds the velocity too) and give the posterior
  in closed form, right as far as stars are what they assume.
- **exact** draws from the posterior p(clean | observed) by diffusion along the star's own noise map: it starts at the
  observation itself and asks a trained network nine times. Nothing is approximated but the network and its steps (1 %
  in width). The line is the median of 16 draws, the band holds 68 % of them.
- **DPS** (Chung et al. 2023) is the literature's guided diffusion: an unconditional DDPM, pulled to the observation in
  each step by a guidance strength. It is **calibrated at no strength**: where its error is least, its draws are 1.7
  times too wide and its 68 % band holds the truth in 54 % of pixels. It is here because others use it, with 50 of 1000
  steps.
- **PiGDM** (Song et al. 2023) guesses the spread of what it does not know yet, as if pixels were independent; a star's
  are not, and its draws come out 1.6 times too wide.
- **MMPS** (Rozet et al. 2024) takes that spread from the network's own derivative. With ten iterations it agrees with
  the exact posterior, 9 % too wide, and takes the longest: up to a minute for 8 draws.

Draws that run away are reported in a sentence and not shown. These figures are from a prior whose posterior is known
(docs/laboratory.md), at S/N 10.
"""
)
with files:
    st.markdown("### Where the spectra come from")
    st.markdown("The bundled stars are **simulated**: synthetic spectra with LAMOST's noise, in its file layout.\n"
                "Your own come by upload, or from folders named when the server starts:")
    st.code("streamlit run app/main.py -- --folder PATH\nTRUELINE_FOLDER=PATH make app", language="sh")
    widgets.sources(catalogue, resources.folders())
