"""I/O out: the only part that writes to the cluster."""
