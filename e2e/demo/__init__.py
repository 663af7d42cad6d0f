"""The demo: the whole product on a real control plane, watched while it runs and judged in a report afterwards."""
