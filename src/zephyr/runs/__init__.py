"""Runs: the graph (DAG) of a recipe, fingerprints, the artifact store, a stage's context."""
