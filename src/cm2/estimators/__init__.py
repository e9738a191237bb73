"""scikit-learn estimators: heads that predict from all modalities, their pool, and baselines."""
