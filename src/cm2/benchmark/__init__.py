"""`cm2 benchmark`: data sets, methods and missing patterns, and how they are put to each other."""
