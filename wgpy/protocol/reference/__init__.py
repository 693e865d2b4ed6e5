"""WireGuard's primitives in plain Python, to be read beside their RFCs.

`chacha20`, `poly1305` and `aead` are RFC 8439 (and the XChaCha draft), `x25519` is
RFC 7748, `blake2s` is RFC 7693.  They are written for clarity: Python's integers take
time that depends on their values, so a secret can leak through timing.  Nothing here
is used for traffic unless somebody asks for the backend ``reference`` by name.
"""
