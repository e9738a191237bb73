"""What every room stands on: records, numerics, registries, files. Its face imports nothing."""
