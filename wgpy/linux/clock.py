"""The clocks of this host, as a `Clock`."""

from __future__ import annotations

import os
import time

entropy = os.urandom


class LinuxClock:
    """Monotonic time that counts suspension too: keys age while a laptop sleeps."""

    @staticmethod
    def monotonic() -> int:
        """CLOCK_BOOTTIME in ns."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    @staticmethod
    def wall() -> int:
        """Nanoseconds since 1970."""
        return time.time_ns()
