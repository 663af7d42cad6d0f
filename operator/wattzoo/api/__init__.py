"""The public API: pydantic models that the CRDs, their CEL rules and the reference are generated from."""
