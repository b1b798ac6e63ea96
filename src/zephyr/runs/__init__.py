"""Runs: the graph of a recipe, fingerprints, the store, and the context of a stage."""
