"""`wgpy-cni` that gets a signal at its N-th step: `python -m tests.strict.cni_ended N SIGNAL`."""

from __future__ import annotations

import os
import sys

from strict.cni import client, ipam, netlink, plugin, verbs

if __name__ == "__main__":
    at, number, count = int(sys.argv[1]), int(sys.argv[2]), 0

    def counted(function):
        def step(*arguments, **more):
            global count
            count += 1
            if count == at:
                os.kill(os.getpid(), number)
            return function(*arguments, **more)

        return step

    netlink.Netlink._ask = counted(netlink.Netlink._ask)
    ipam.Ipam._run = counted(ipam.Ipam._run)
    verbs.ask = counted(client.ask)
    plugin.main()
