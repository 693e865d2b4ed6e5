"""`make leak-hunt`: an hour of combinations by default; exit status 1 when something leaked."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from testbed import privileges
from tests.leaks.hunt import hunt


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.leaks", description=__doc__)
    parser.add_argument("--duration", type=float, default=3600, help="seconds (3600)")
    parser.add_argument("--count", type=int, default=10**9, help="combinations (no limit)")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 1_000_000)
    parser.add_argument("--mode", choices=("strict", "default"), default="strict")
    chosen = parser.parse_args()
    privileges.require()
    print(f"leak hunt: seed {chosen.seed}, {chosen.mode} mode", flush=True)

    def say(text: str) -> None:
        print(text, flush=True)

    outcome = hunt(chosen.seed, count=chosen.count, duration=chosen.duration, say=say,
                   mode=chosen.mode)  # fmt: skip
    print(f"\n{outcome.combinations} combinations in {len(outcome.scenes)} scenes, "
          f"{outcome.secret} of them secret; {outcome.frames} frames searched; "
          f"{outcome.open_seen} open shots seen; {len(outcome.trouble)} clusters in trouble; "
          f"{len(outcome.finds)} leaks")  # fmt: skip
    for title, kind in (("scene", "scene"), ("combination", "shot")):
        print(f"\nleaks by {title}:")
        found = Counter(getattr(find, kind).partition(" ")[2] if kind == "shot" else find.scene
                        for find in outcome.finds)  # fmt: skip
        for text, number in found.most_common(40):
            print(f"  {number:5}  {text}")
    for text in outcome.refused[:20]:
        print(f"no effect: {text}")
    return 1 if outcome.finds else 0


if __name__ == "__main__":
    sys.exit(main())
