"""Puts measured tables between their marks on a page of the docs, so that text and numbers come from one run."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

DOCS = Path(__file__).resolve().parents[1] / "docs"


def with_error(frame: pd.DataFrame, name: str, digits: int = 2, factor: float = 1.0) -> list[str]:
    """A column and its error, the column `<name>_err`, as one: "1.23 +- 0.04"; both times `factor`."""
    pairs = zip(factor * frame[name], factor * frame[f"{name}_err"], strict=True)
    return [f"{value:.{digits}f} +- {error:.{digits}f}" for value, error in pairs]


def markdown(table: pd.DataFrame) -> str:
    """A small table as Markdown."""
    rows = [table.columns, ["---"] * table.shape[1], *table.values]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


def fill(page: Path, parts: dict[str, pd.DataFrame]) -> None:
    """Replace what stands between `<!-- name -->` and the next `<!-- end -->` by each table.

    Raises:
        ValueError: the page lacks a mark.
    """
    text = page.read_text()
    for mark, frame in parts.items():
        begin = f"<!-- {mark} -->"
        if begin not in text:
            raise ValueError(f"{page} has no mark {begin}; put it and <!-- end --> where the table belongs.")
        start = text.index(begin) + len(begin)
        text = text[:start] + "\n" + markdown(frame) + "\n" + text[text.index("<!-- end -->", start):]
    page.write_text(text)
