"""The words of page Models and data: what the pages show, what the methods are, where the data are from."""

from __future__ import annotations

SEEN = """
##### What you see
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
- **Trust** is 1 - posterior variance / prior variance, ten pixels together: 1 where data decide, 0 where the prior
  does. Only methods that draw have it.
- **Flags** (triangles) are places where what a method left over is no noise: something is in the data that it took out.
- **chi2** is its mean square over measured pixels: 1 for the truth. A method below 1 has kept some of the noise; the
  method `noisy` keeps all of it and has 0. 1 is necessary, not sufficient: most pixels hold no line, and a method that
  erases lines can have it. Hence chi2 and rms also inside the zoomed lines.
- **σ** is the quoted one times a scale measured on one LAMOST plate of 2011. In the red arm, sky residuals that all
  stars of a plate share add 1 to 2 σ, which σ does not hold: not every red point beyond 3 is a line.

##### What it does not show
A band is right for stars like those the methods were made from: synthetic ones, and real ones of public libraries. A
line that is not in there, as of a rare star, can be missing from every draw. Where truth is
unknown, look at the residual.
"""

METHODS = """
##### What the methods are
- **Savitzky-Golay, wavelet, PCA** are filters without an error bar: nothing says how wrong they are.
- **Wiener, mixture** know how stars vary (one Gaussian; a mixture that finds the velocity too) and give the posterior
  in closed form, right as far as stars are what they assume.
- **exact** draws from the posterior p(clean | observed) by diffusion along the star's own noise map: it starts at the
  observation itself and asks a trained network nine times. Nothing is approximated but the network and its steps (1 %
  in width). The line is the median of the draws, the band holds 68 % of them.
- **supervised** is the literature's conditional DDPM, shown the noisy spectrum alone, **supervised + ivar** shown its
  noise map too; **DnCNN** (Zhang et al. 2017) answers once. They are **reproduced here and undertrained**: made anew
  from the papers, with weights of 20 to 40 s of a GPU each (docs/study.md). That they lose here shows that they are not
  finished, not that they are worse. Their bands are not calibrated: nothing makes what they draw a posterior at a noise
  map that they never saw, and on Star a sentence says where a star's noise is none that they were trained on.
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

NOT_PROVED = """
- **LAMOST itself.** No LAMOST star has a known truth. Its spectra are judged against themselves with noise added, and
  such a truth has noise of its own. Noise and sky patterns were measured on one plate of the pilot survey (2011).
- **Labels of real stars** are those of the literature, with errors and a scale of their own, in no interval here.
- **Rare stars.** What is in neither the synthetic library nor MILES, STELIB and MaStar can be missing from every draw;
  the domain score on page Labels and the flags on page Star are what warns of it.
- **Filters** (Savitzky-Golay, wavelets, PCA) give one answer: nothing says how wrong it is.
- **TARP, the Payne-style fit and cross-correlated velocities** were not run on the judge's stars.
- **The audit** is of simulated stars alone.
"""

DATA = """
- **Bundled stars** are simulated, in LAMOST's file layout; their truth is known.
- **LAMOST** spectra are the survey's: follow its [data policy](http://www.lamost.org/policies/data_policy.html) and the
  acknowledgement it asks for. None is part of this repository.
- **Synthetic library**: SYNSPEC 54 on ATLAS9-type atmospheres in LTE, packed into `library.safetensors`.
- **Real stars** (MILES, STELIB, MaStar) are read where the Python package that ships them is there; only numbers
  learned from them, of three quarters of the stars, are in the checkpoints. A quarter is kept out of everything.
- **Code and weights**: MIT.
"""
