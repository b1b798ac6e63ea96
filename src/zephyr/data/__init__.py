"""Data sets: loaders and readers, deduplication, decontamination, mixtures and their splits."""
