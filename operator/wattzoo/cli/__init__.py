"""Commands of `wattzoo` that need no cluster."""
