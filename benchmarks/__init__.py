"""Measurements that are too slow for tests; each writes a page under results/."""
