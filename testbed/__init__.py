"""Clusters of network namespaces on one machine, an eavesdropper between them, labs, the demo.

`topology` reads a file, `cluster` makes it real, `sniffer` watches the wire; `docs/testbed.md`
explains how to use it.  The rest of this repository is used as programs or through its
public interfaces.
"""
