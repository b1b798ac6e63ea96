"""Models whose greedy answers never end, and prompts for them of about a hundred tokens.

Weights are random: how fast a server is does not depend on what they have learned. The row of the
end token is zero, in the embeddings and so in the head that is tied to them: its logit is zero,
and among thousands of others drawn around zero it is never the largest.
"""

import gzip
import json
import random
from pathlib import Path
from typing import Any

from bench import shape

TOKENS = (90, 110)
"""The least and the most tokens of a prompt, the chat template's included."""
SEED = 0
END = 151_645


def qwen(folder: Path, data: Path, layers: int = 24) -> None:
    """The shape of Qwen1.5-0.5B in bfloat16, with its own tokenizer and chat template."""
    from safetensors.torch import load_file, save_file

    shape.make_model(folder, data / "tokenizers" / "qwen2", layers=layers)
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["model.embed_tokens.weight"][END] = 0
    save_file(weights, path, {"format": "pt"})


def small(folder: Path, data: Path) -> None:
    """The shape of the embedded recipe's models in float32, with 1,024 tokens of its own.

    Two more are the markers of the same chat template: without them `transformers serve` streams
    the prompt back before the answer.
    """
    import torch

    from zephyr.model import from_scratch
    from zephyr.recipe.training import Shape

    folder.mkdir(parents=True, exist_ok=True)
    texts = [row["question"] for row in questions(data, "train")]
    tokenizer = from_scratch.train_tokenizer(texts, Shape().vocabulary)
    markers = {"additional_special_tokens": ["<|im_start|>"], "eos_token": "<|im_end|>"}
    tokenizer.add_special_tokens(markers)
    tokenizer.chat_template = shape.TEMPLATE
    tokenizer.save_pretrained(folder)
    own = Shape(vocabulary=len(tokenizer))
    network = from_scratch.make_network(own, eos_token_id=tokenizer.eos_token_id, seed=SEED)
    with torch.no_grad():
        network.get_input_embeddings().weight[tokenizer.eos_token_id] = 0
    network.save_pretrained(folder)


def questions(data: Path, split: str) -> list[dict[str, Any]]:
    """Rows of GSM8K."""
    text = gzip.decompress((data / "gsm8k" / f"{split}.jsonl.gz").read_bytes()).decode()
    return [json.loads(line) for line in text.split("\n") if line]


def prompts(folder: Path, data: Path, count: int) -> list[str]:
    """Questions of GSM8K's test that have about a hundred tokens in a model's own chat form."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = questions(data, "test")
    random.Random(SEED).shuffle(rows)
    found = []
    for row in rows:
        chat = [{"role": "user", "content": row["question"]}]
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        length = len(tokenizer(text, add_special_tokens=False)["input_ids"])
        if TOKENS[0] <= length <= TOKENS[1]:
            found.append(row["question"])
        if len(found) == count:
            return found
    raise SystemExit(f"only {len(found)} questions of GSM8K have {TOKENS} tokens; {count} wanted")
