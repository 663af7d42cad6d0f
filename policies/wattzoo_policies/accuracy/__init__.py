"""Laws that keep the accuracy promise, and the ledger they keep it with."""
