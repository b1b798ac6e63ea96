"""Command line interface (typer, rich): commands, progress display and printed tables."""
