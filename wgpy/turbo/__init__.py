"""The batch path compiled: an optional extra (``pip install wgpy[turbo]``), never needed.

numba compiles these modules from their Python source on the first use and keeps the
result on disk.  What a train needs is then done in a few calls: cutting, sealing, opening
and merging, with all messages of a train side by side in the processor's vectors.

`vectors` has the loops that are written as vector operations, `aead` ChaCha20-Poly1305
for trains, `frames` cutting and merging, `train_tools` the objects that the batch path uses.
Only whole trains come here: handshakes and lone packets stay with package cryptography.
"""

from wgpy.turbo.train_tools import TURBO, TurboCrypto

__all__ = ["TURBO", "TurboCrypto"]
