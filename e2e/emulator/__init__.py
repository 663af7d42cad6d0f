"""Emulated model servers: one process plays every GPU pod of the harness, driven by the plant of wattzoo_policies.sim.

Nothing here decides how long a token takes or how many watts it costs; that is the plant's. This package gives the
plant a clock, sockets, pods to play and exporters that real Prometheus scrapes.
"""
