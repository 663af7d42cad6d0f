"""The operator itself in a simulated fleet: its own passes over a cluster and meters that the plant's counts fill."""
