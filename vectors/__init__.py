"""Machine-readable WireGuard test vectors, their generator and two verifiers.

The whitepaper has no byte vectors.  These files hold what it fixes, with every
intermediate value.  `vectors/data/*.json` follow `schema.json`; `kinds/` computes each
kind of vector with wgpy, `verify` compares, `standalone.py` does the same without wgpy.
"""
