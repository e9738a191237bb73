"""Experiments: a YAML file, one run's folder, and what is made of many of them."""
