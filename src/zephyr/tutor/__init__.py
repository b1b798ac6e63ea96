"""The tutor server: an OpenAI-compatible API and a web page on a recipe's models, and votes."""
