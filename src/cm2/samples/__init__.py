"""Data: simulated worlds, arrays as batches, and real views."""
