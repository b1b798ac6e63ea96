"""The data set pipeline: rows on disk or the hub to records, then mixtures to train on."""
