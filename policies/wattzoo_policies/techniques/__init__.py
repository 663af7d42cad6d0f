"""Techniques of single papers that the planner and the gateway build on."""
