"""Wrappers that make a replica law safe to act on: each takes a law and returns a law."""
