"""Reports on finished runs: results table, figures, HTML page, data cards and model cards."""
