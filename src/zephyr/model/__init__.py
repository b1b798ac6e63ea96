"""Language models: loading, tokens and chat template, logprobs, generation, KV cache, LoRA.

Shapes of arrays are given in these letters: B batch (rows) · T time (tokens) · N completions, or
their loss-mask tokens · V vocabulary · H hidden · L layers · K kept (shared) prefix · I and O the
inputs and outputs of a linear layer · R the rank of a LoRA adapter.
"""
