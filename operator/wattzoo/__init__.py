"""WattZoo: declare how good the answers must be; it serves them with the fewest joules."""

__version__ = "0.1.0"
