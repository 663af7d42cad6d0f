"""A fleet in steps of 15 seconds with flows in place of single requests: a day of 40 requests/s in a minute."""
