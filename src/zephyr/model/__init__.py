"""Networks, tokenizers and the one way in which text enters a network.

Shapes of arrays are given in these letters: B batch (rows) · T time (tokens) · N completions, or
their loss-mask tokens · V vocabulary · H hidden · L layers · K kept (shared) prefix · I and O the
inputs and outputs of a linear layer · R the rank of a LoRA adapter.
"""
