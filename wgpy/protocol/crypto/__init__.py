"""The primitives of §5.4 behind one small interface, with three implementations.

`openssl` is the default, `sodium` a second production library, `reference` the RFCs
written out in plain Python (`wgpy.protocol.reference`).  All three give the same bytes.
This package is the only importer of ``cryptography``, ``nacl`` and ``hashlib``.

Invariants: a tag that does not fit is a value (None), a Diffie-Hellman result of zero is
`LowOrderError`, a secret is never in a repr.  What to hash and encrypt, and in which
order, is left to `noise`, `cookie` and `session`.
"""

from __future__ import annotations

from typing import Final, Literal

from wgpy.protocol.crypto.interface import Aead, Crypto, LowOrderError

__all__ = ["BACKENDS", "DEFAULT_BACKEND", "Aead", "BackendName", "Crypto", "LowOrderError",
           "UnknownBackendError", "backend"]  # fmt: skip

BackendName = Literal["openssl", "sodium", "reference"]
BACKENDS: Final[tuple[BackendName, ...]] = ("openssl", "sodium", "reference")
DEFAULT_BACKEND: Final[BackendName] = "openssl"


class UnknownBackendError(ValueError):
    """No crypto backend has this name."""


def backend(name: str = DEFAULT_BACKEND) -> Crypto:
    """A new backend by name; raises `UnknownBackendError`.

    Only the named library is loaded, and nothing ever falls back to another one.
    `reference` is slow and leaks secrets through timing, so it must be asked for by name.
    """
    # Imports here: each library costs milliseconds of start-up that only its user pays.
    match name:
        case "openssl":
            from wgpy.protocol.crypto.openssl import OpenSslCrypto

            return OpenSslCrypto()
        case "sodium":
            from wgpy.protocol.crypto.sodium import SodiumCrypto

            return SodiumCrypto()
        case "reference":
            from wgpy.protocol.crypto.plain import ReferenceCrypto

            return ReferenceCrypto()
    raise UnknownBackendError(f"no crypto backend {name!r}; choose one of {', '.join(BACKENDS)}")
