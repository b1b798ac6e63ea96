"""Statistics: confidence intervals (Wilson, bootstrap) and paired significance tests."""
