"""Measurements of wgpy in comparison with other WireGuards.

`wgpy bench micro` times one operation, `pipeline` the packet path without the kernel,
`system` whole tunnels between network namespaces, `scale` growth, `strict` the cost of
the strict table.  Every kind writes the same file (`model.Recording`), so tables,
plots, reports and comparisons are written once.

Absolute figures move from run to run and from machine to machine.  Only ratios taken in
one interleaved run count, and everything here is built for that.
"""
