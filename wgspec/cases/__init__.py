"""The requirements, one file per section; importing this package registers them all."""

from wgspec.case import REGISTRY, Case
from wgspec.cases import (  # noqa: F401 - importing registers
    section_a,
    section_b,
    section_c,
    section_d,
    section_e,
    section_f,
    section_g,
    section_h,
    section_i,
)


def all_cases() -> list[Case]:
    """Every requirement in order of its number."""
    return sorted(REGISTRY.values(), key=lambda c: c.number)
