"""WireGuard in virtual time: thousands of engines in one process, deterministic.

`World` holds a clock that only moves when the next thing happens, nodes that each run
the real `wgpy.protocol` engine, and a network that loses, delays, reorders, duplicates
and translates.  Everything random comes from one seed: the same seed gives the same
run to the byte.  An hour of an idle tunnel takes milliseconds.
"""
