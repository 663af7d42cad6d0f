"""Which replicas of which variants on which accelerators: one joint plan for all services that share pools."""
