"""Numbers as people read them: ``2.91 Gbit/s``, ``109 µs``, ``84.1 MB``."""

from __future__ import annotations

_LARGE = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_SMALL = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))


def show(value: float, unit: str) -> str:
    """Three significant digits with a prefix where the unit takes one."""
    if unit == "1":
        return three(value)
    if unit == "s/GB":
        return f"{three(value)} s/GB"
    if unit == "s":
        factor, prefix = _fitting(_SMALL, value)
        return f"{three(value / factor)} {prefix}s"
    factor, prefix = _fitting(_LARGE, value)
    if unit == "1/s":
        return f"{three(value / factor)} {prefix}/s".replace(" /s", "/s")
    return f"{three(value / factor)} {prefix}{unit}"


def three(value: float) -> str:
    """Three significant digits, never in exponents below a million."""
    if value == 0:
        return "0"
    if abs(value) < 1000:
        value = float(f"{value:.3g}")  # so that 99.996 counts as 100
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size >= 0.01:
        return f"{value:.3g}"
    return f"{value:.2g}"


def _fitting(steps: tuple[tuple[float, str], ...], value: float) -> tuple[float, str]:
    for factor, prefix in steps:
        if abs(value) >= factor:
            return factor, prefix
    return (1.0, "") if value == 0 else steps[-1]
