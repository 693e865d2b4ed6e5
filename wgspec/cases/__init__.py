"""The requirements, one file per section."""

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
