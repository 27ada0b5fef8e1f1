"""Which lines are worth a panel of their own, on page and screen."""

from __future__ import annotations

from dataclasses import dataclass

from core.data.grid import doppler


@dataclass(frozen=True)
class Window:
    """A line, or lines, worth a panel: name, centres and range in vacuum Angstrom at rest."""

    name: str
    centres: tuple[float, ...]
    low: float
    high: float


#: Vacuum wavelengths from the NIST Atomic Spectra Database; wide enough for the wings of an A star.
WINDOWS: tuple[Window, ...] = (
    Window("Hβ", (4862.69,), 4812, 4914),
    Window("Mg b", (5168.76, 5174.13, 5185.05), 5137, 5217),
    Window("Na D", (5891.58, 5897.56), 5859, 5931),
    Window("Hα", (6564.61,), 6509, 6621),
    Window("Ca II triplet", (8500.36, 8544.44, 8664.52), 8460, 8706),
)


def shifted(velocity: float) -> list[tuple[float, float]]:
    """(low, high) of each of WINDOWS [vacuum Angstrom], where a star of this velocity [km/s] has it."""
    return [(float(low), float(high)) for low, high in (doppler([w.low, w.high], velocity) for w in WINDOWS)]
