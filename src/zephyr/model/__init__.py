"""Networks, tokenizers and the one way in which text enters a network."""
