"""Estimate and decide: pure, total and deterministic. Plain frozen data in, plain frozen data out."""
