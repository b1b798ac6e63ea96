"""Statistics: confidence intervals and significance tests."""
