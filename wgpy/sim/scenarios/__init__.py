"""The named scenarios of ``wgpy sim``; importing this package registers them all."""

from wgpy.sim.scenario import REGISTRY as SCENARIOS
from wgpy.sim.scenarios import clockwork, paths, trouble

__all__ = ["SCENARIOS", "clockwork", "paths", "trouble"]
