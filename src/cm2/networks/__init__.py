"""The network: encoders, imputers, fusions, models that join them, and their training."""
