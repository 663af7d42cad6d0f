"""What users read: conditions, decision records and events. Pure."""
