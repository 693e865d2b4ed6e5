"""Pods attached by a container runtime: the CNI plugin `wgpy-cni` and the agent's end of it.

The plugin is a program that lives for a moment: `plugin` reads the request, `verbs` carries
it out with `ipam` (delegated addresses), `pod` (devices and routes, by `netlink`) and
`client` (the agent).  The agent's end is `server`, a source of discovery like any other,
with `pods` as its memory.  `install` writes what a runtime reads.

What the plugin imports is kept small, for it starts once for every pod: no pyroute2, no
click, no dataclasses.  CNI specification 1.0.0 and 1.1.0.
"""
