"""The population prior of labels: which stars the simulator draws, stated in numbers."""

from __future__ import annotations

import numpy as np

from core.spectrum import Array

#: Labels of the library, in its order: kind (0 dwarf, 1 giant, 2 hot), Teff [K], logg, abundances [dex], vmic [km/s],
#: scatter of 20 elements about them [dex].
LABEL_NAMES: tuple[str, ...] = (
    "kind", "teff", "logg", "feh", "alpha_fe", "c_fe", "n_fe", "vmic",
    "d_O", "d_Na", "d_Mg", "d_Al", "d_Si", "d_Ca", "d_Ti", "d_V", "d_Cr", "d_Mn", "d_Co", "d_Ni",
    "d_Sr", "d_Y", "d_Zr", "d_Ba", "d_La", "d_Ce", "d_Nd", "d_Eu",
)  # fmt: skip

#: Domain of each kind: (Teff low, high), (logg low, high); [Fe/H] -2.5..0.5 for all.
DOMAIN = {0: ((4000.0, 7500.0), (3.35, 4.85)), 1: ((3960.0, 5590.0), (0.0, 4.85)), 2: ((6510.0, 11980.0), (3.0, 4.6))}
FEH_RANGE = (-2.49, 0.49)


def _scatter(rng: np.random.Generator, n: int, labels: Array) -> None:
    """Fill abundances and micro-turbulence in place: alpha follows [Fe/H], mixing follows gravity, elements scatter."""
    kind, teff, logg, feh = labels[:, 0], labels[:, 1], labels[:, 2], labels[:, 3]
    giant = (kind == 1) & (logg < 3.3)
    # thin disk near 0, thick disk and halo at .25 (Hayden et al. 2015), the choice by [Fe/H]
    high = rng.random(n) < 1 / (1 + np.exp((feh + 0.6) / 0.15))
    alpha = np.where(high, 0.25, 0.03 - 0.1 * np.clip(feh, -1, 0.5))
    labels[:, 4] = np.clip(alpha + 0.07 * rng.standard_normal(n), -0.19, 0.55)
    labels[:, 5] = np.clip(np.where(giant, -0.12, 0.03) + 0.1 * rng.standard_normal(n), -0.6, 0.35)
    labels[:, 6] = np.clip(np.where(giant, 0.2, 0.03) + 0.12 * rng.standard_normal(n), -0.2, 0.6)
    # vmic: close to what the library was computed with (hot stars 3, giants falling with logg, dwarfs rising with Teff)
    vmic = np.where(kind == 2, 3.0, np.where(kind == 1, 2.0 - 0.2 * (logg - 1.0), 1.2 + (teff - 5500) / 1500))
    labels[:, 7] = np.clip(vmic + 0.2 * rng.standard_normal(n), 0.6, 3.9)
    labels[:, 8:] = np.clip(0.08 * rng.standard_normal((n, labels.shape[1] - 8)), -0.17, 0.17)
    labels[:, 9] = np.clip(1.4 * labels[:, 9], -0.3, 0.3)  # Na scatters more


def draw_labels(n: int, rng: np.random.Generator, even: float = 0.4) -> Array:
    """(n, 28) labels: a fraction `even` spread over the whole domain, the rest a sketch of LAMOST's traffic.

    LAMOST's part: 55 % FGK dwarfs, 33 % giants (a third of them in the red clump), 12 % hotter stars; [Fe/H] from
    80 % thin disk (-.1 +- .22), 16 % thick disk (-.55 +- .25) and 4 % halo (-1.5 +- .5). The even part keeps rare stars
    inside: a prior that knows only the common ones would correct the others towards them.
    """
    labels = np.zeros((n, len(LABEL_NAMES)))
    flat = rng.random(n) < even
    kind = np.where(flat, rng.choice(3, n, p=(0.45, 0.4, 0.15)), rng.choice(3, n, p=(0.55, 0.33, 0.12)))
    u = rng.random((n, 2))
    teff, logg = np.zeros(n), np.zeros(n)
    for k, ((t0, t1), (g0, g1)) in DOMAIN.items():
        at = kind == k
        teff[at], logg[at] = t0 + (t1 - t0) * u[at, 0], g0 + (g1 - g0) * u[at, 1]
    # the main sequence and the giant branch, each with a width; clump at 4850 K, 2.45
    dwarf, giant, hot = (~flat & (kind == k) for k in (0, 1, 2))
    teff[dwarf] = np.clip(5700 + 700 * rng.standard_normal(dwarf.sum()), 4000, 7500)
    zero_age = 4.68 - 0.35 * np.clip((teff[dwarf] - 4600) / 1500, 0, 1)
    logg[dwarf] = np.clip(zero_age - 0.18 * np.abs(rng.standard_normal(dwarf.sum())), 3.35, 4.85)
    clump = rng.random(giant.sum()) < 0.35
    g = np.where(clump, 2.45 + 0.12 * rng.standard_normal(giant.sum()), 3.4 - 2.4 * rng.random(giant.sum()) ** 1.5)
    logg[giant] = np.clip(g, 0.3, 4.0)
    teff[giant] = np.clip(np.where(clump, 4850, 3950 + 420 * logg[giant] - 20 * logg[giant] ** 2)
                          + 120 * rng.standard_normal(giant.sum()), 3960, 5590)
    teff[hot] = np.clip(7000 + 1500 * np.abs(rng.standard_normal(hot.sum())), 6510, 11980)
    logg[hot] = np.clip(4.05 + 0.2 * rng.standard_normal(hot.sum()), 3.0, 4.6)
    part = rng.random(n)
    feh = np.where(part < 0.8, -0.1 + 0.22 * rng.standard_normal(n),
                   np.where(part < 0.96, -0.55 + 0.25 * rng.standard_normal(n), -1.5 + 0.5 * rng.standard_normal(n)))
    feh = np.where(flat, FEH_RANGE[0] + (FEH_RANGE[1] - FEH_RANGE[0]) * rng.random(n) ** 0.6, feh)
    # giants cool with metallicity: metal-poor ones are hotter at the same gravity
    teff = np.where(giant, np.clip(teff - 200 * np.clip(feh, -1.5, 0.3), 3960, 5590), teff)
    labels[:, 0], labels[:, 1], labels[:, 2] = kind, teff, logg
    labels[:, 3] = np.clip(feh, *FEH_RANGE)
    _scatter(rng, n, labels)
    return labels
