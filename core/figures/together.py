"""Sheets put together: one beside another, or one over another, on axes that compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from core.figures.sheets import Panel, Sheet, above, around
from core.spectrum import Array


def _values(panel: Panel) -> list[Array]:
    """All that a panel must have room for: points, the ends of their error bars, rules."""
    ends = [p.y + side * np.nan_to_num(bar) for p in panel.points if p.error is not None
            for side, bar in zip((-1, 1), p.error, strict=True)]
    return [*ends, *(p.y for p in panel.points), *(rule.y for rule in panel.rules)]


def _shared(panels: Sequence[Panel]) -> list[Panel]:
    """The panels on one range of x and of y: a larger scatter must look larger."""
    log, x = any(panel.log_y for panel in panels), [panel.x_range for panel in panels if panel.x_range]
    if log:
        middle = np.concatenate([np.ravel(p.y) for panel in panels for p in panel.points])
        every = np.concatenate([np.ravel(v) for panel in panels for v in _values(panel)])
        # a bar may reach down to nothing, which no logarithm shows
        reach = above(every[every > middle[middle > 0].min() / 4])
    elif all(panel.y_range for panel in panels):
        reach = around([panel.y_range for panel in panels if panel.y_range], margin=0.0)
    else:
        reach = around([v for panel in panels for v in _values(panel)], zero=True)
    wide = (min(low for low, _ in x), max(high for _, high in x)) if x else None
    ticks = tuple(sorted({tick for panel in panels for tick in panel.ticks}))
    return [replace(panel, y_range=reach, log_y=log, x_range=wide, ticks=ticks) for panel in panels]


def beside(sheets: Sequence[Sheet], titles: Sequence[str]) -> Sheet:
    """Sheets of one panel a row set beside each other, each under its title; every row shares its axes.

    Args:
        sheets: with the same number of rows, as of one composer for two samples; titles: one each.

    Raises:
        ValueError: no sheet, titles that are not one each, sheets whose rows are not as many.
    """
    if not sheets or len(titles) != len(sheets) or len({len(sheet.rows) for sheet in sheets}) > 1:
        raise ValueError(f"{len(sheets)} sheets with {len(titles)} titles cannot stand beside each other; give sheets "
                         "of as many rows each, and one title for each.")
    rows: list[tuple[Panel | None, ...]] = []
    for i, parts in enumerate(zip(*(sheet.rows for sheet in sheets), strict=True)):
        panels = _shared([panel for row in parts for panel in row if panel is not None])
        named = [replace(panel, title=title if i == 0 else "", y_label=panel.y_label if j == 0 else "", y_text=j == 0)
                 for j, (panel, title) in enumerate(zip(panels, titles, strict=True))]
        rows.append(tuple(named))
    first = sheets[0]
    samples = tuple(dict.fromkeys(name for sheet in sheets for name in sheet.samples))
    return Sheet(tuple(rows), first.heights, first.height, samples, first.legend)


def stacked(sheets: Sequence[Sheet], notes: Sequence[str]) -> Sheet:
    """Sheets of as many columns set under each other; each panel says in its corner which sheet it is from.

    Args:
        sheets: with the same numbers of rows and columns, as of one composer for two samples and the same methods.
        notes: one each.

    Raises:
        ValueError: no sheet, notes that are not one each, sheets whose panels are not as many.
    """
    if not sheets or len(notes) != len(sheets) or len({(len(s.rows), len(s.rows[0])) for s in sheets}) > 1:
        raise ValueError(f"{len(sheets)} sheets with {len(notes)} notes cannot stand under each other; give sheets of "
                         "as many rows and columns each, and one note for each.")
    deep = len(sheets[0].rows)
    rows = [[panel and replace(panel, note=f"{note}\n{panel.note}".strip()) for panel in row]
            for sheet, note in zip(sheets, notes, strict=True) for row in sheet.rows]
    for i in range(deep):
        same = [(j, k) for j in range(i, len(rows), deep) for k, panel in enumerate(rows[j]) if panel is not None]
        found = _shared([panel for j, k in same if (panel := rows[j][k]) is not None])
        for (j, k), panel in zip(same, found, strict=True):
            rows[j][k] = panel
    samples = tuple(dict.fromkeys(name for sheet in sheets for name in sheet.samples))
    return Sheet(tuple(tuple(row) for row in rows), tuple(share for sheet in sheets for share in sheet.heights),
                 sum(sheet.height for sheet in sheets), samples, sheets[0].legend)
