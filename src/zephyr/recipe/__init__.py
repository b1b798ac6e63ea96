"""The recipe (YAML): its pydantic schema, one module a part, and how it is loaded."""
