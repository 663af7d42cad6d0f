"""End-to-end: a real control plane, an emulated model server, scenarios and the demo."""
