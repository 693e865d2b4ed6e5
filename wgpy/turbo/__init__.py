"""The batch path compiled: an optional extra (``pip install wgpy[turbo]``), never needed.

numba compiles these modules on the first use and caches the result on disk.  A train then
takes a few calls: cutting, sealing, opening and merging, with all messages of a train side
by side in the processor's vectors.

`vectors` emits the innermost loops as LLVM vector instructions; the rest is compiled from
its Python source: `aead` is ChaCha20-Poly1305 for trains, `frames` cutting and merging.
`train_tools` has the objects that the batch path uses.  Only whole trains come here:
handshakes and lone packets stay with package cryptography.
"""

from wgpy.turbo.train_tools import TURBO, TurboCrypto

__all__ = ["TURBO", "TurboCrypto"]
