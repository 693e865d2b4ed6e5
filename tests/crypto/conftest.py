"""Every test here that asks for `crypto` runs on all three backends."""

from __future__ import annotations

import pytest

from wgpy.protocol.crypto import BACKENDS, Crypto, backend


@pytest.fixture(params=BACKENDS)
def crypto(request: pytest.FixtureRequest) -> Crypto:
    return backend(request.param)
