"""Statistics: confidence intervals (exact, bootstrap) and paired significance tests."""
