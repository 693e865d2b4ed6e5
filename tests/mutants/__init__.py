"""Does the conformance suite catch bugs?  Faults planted in wgpy, one at a time.

    python -P -m tests.mutants                 every fault, and the cases that catch it
    python -P -m tests.mutants mac1-unchecked  one of them

`faults.toml` lists the faults as text to find in wgpy's source and text to write instead.
wgspec is a black box and knows nothing of this: it is given a program to test, and the
programs here (`daemon`, `engine`) plant a fault in wgpy before they run it.
"""
