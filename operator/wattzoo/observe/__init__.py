"""I/O in: what the API server and Prometheus say, as frozen snapshots."""
