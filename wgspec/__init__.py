"""wgspec: a black-box conformance tester for any WireGuard.

It has its own wire codec and its own naive peer, written from the whitepaper, and
imports nothing of `wgpy`: an error cannot hide on both sides of the wire.

Reading order: `wire` and `noise` (the protocol), `target` (what is tested), `lab` (what a
case sees), `case` and `cases/` (the requirements), `runner`, `report`, `cli`.
"""
