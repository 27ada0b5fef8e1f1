"""Every figure as a function of a result table, in two coats of the same numbers: Plotly and Matplotlib; no torch."""
