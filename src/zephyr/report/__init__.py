"""Tables, curves and the report: readers of finished runs, never called by training."""
