"""Real clients against a real server; `python -m tests.clients.run_clients` runs them."""
