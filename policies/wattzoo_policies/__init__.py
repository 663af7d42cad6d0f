"""The pure numerical core of WattZoo: control laws, capacity models and the plant they are tried in.

Nothing here does I/O, reads a clock or draws unseeded randomness: time is an argument (`at_seconds`) and so is the
numpy `Generator`. That is what lets the running operator, the simulator and the emulated model server share one code.
"""
