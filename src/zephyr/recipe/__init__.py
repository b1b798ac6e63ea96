"""The recipe: its schema, one file a part, and how it is read from YAML."""
