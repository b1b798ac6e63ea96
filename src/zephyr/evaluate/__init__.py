"""Tasks: questions that every model is asked in the same way."""
