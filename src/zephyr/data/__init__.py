"""Records, sources and mixtures: from rows on disk to the examples a model is shown."""
