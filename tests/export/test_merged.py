"""Exported folders in plain transformers: the same weights, prompts, answers and stops."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests import tiny
from tests.export.model_files import add_chatml, write_model
from zephyr.errors import ZephyrError
from zephyr.export.merged import load_merged, write_merged
from zephyr.export.prompt_check import check_prompts
from zephyr.model import adapter, from_scratch
from zephyr.model.load import Lineage, load_model
from zephyr.model.model import Model
from zephyr.model.precision import stored_dtype
from zephyr.recipe.training import Lora
from zephyr.records import Message

CONVERSATIONS = [
    [Message("user", "What is force")],
    [Message("system", "Be kind"), Message("user", "2 + 23")],
    [Message("user", "a"), Message("assistant", "It is 4"), Message("user", "Why")],
]


def add_random_adapter(lineage: Lineage, folder: Path) -> Lineage:
    """A lineage with an adapter on top that changes much."""
    model = load_model(lineage, Path("/"), token_budget=256)
    model.peft_model = adapter.add_trainable_adapter(
        model.causal, model.peft_model, Lora(rank=4), seed=1
    )
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.peft_model.named_parameters():
            if "lora_B" in name and adapter.is_top_adapter_parameter(model.peft_model, name):
                parameter.normal_(std=0.2)
    adapter.save_adapter(model.peft_model, folder, "base")
    return lineage.with_adapter(str(folder))


def assert_same_answers(model: Model, folder: Path, tolerance: float) -> None:
    """Logits, prompt ids, answers and stops of a folder in plain transformers are the model's."""
    hf_model, hf_tokenizer = (
        AutoModelForCausalLM.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
    )
    hf_model = hf_model.float().eval()
    stop_token_ids = hf_model.generation_config.eos_token_id
    assert sorted(
        stop_token_ids if isinstance(stop_token_ids, list) else [stop_token_ids]
    ) == sorted(model.template.stop_token_ids)
    for conversation in CONVERSATIONS:
        rows = [{"role": m.role, "content": m.content} for m in conversation]
        ids = hf_tokenizer.apply_chat_template(rows, add_generation_prompt=True, return_dict=False)
        prompt = model.template.encode_prompt(conversation)
        assert ids == prompt.tolist()
        input_ids = torch.tensor([ids])
        with torch.no_grad():
            torch.testing.assert_close(
                hf_model(input_ids).logits, model.causal(input_ids).logits, atol=tolerance, rtol=0
            )
        if tolerance < 1e-3:
            answer = hf_model.generate(input_ids, max_new_tokens=12, do_sample=False)[0, len(ids) :]
            [generation] = model.generate([prompt], max_new_tokens=12)
            assert model.template.decode(answer.numpy().astype(np.int32)) == generation.text


def test_two_adapters_are_in_the_weights(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", "qwen2")
    lineage = add_random_adapter(add_random_adapter(base, tmp_path / "a"), tmp_path / "b")
    out = tmp_path / "out"
    out.mkdir()
    _, notes = write_merged(lineage, Path("/"), out)
    assert notes == ["It loads in transformers 4.53, with which this is tested, and newer."]
    before, after = (load_file(f / "model.safetensors") for f in (tmp_path / "base", out))
    assert before.keys() == after.keys()
    assert not torch.equal(*(w["model.layers.0.mlp.up_proj.weight"] for w in (before, after)))
    assert_same_answers(load_model(lineage, Path("/"), token_budget=256), out, 1e-4)


def test_weights_have_the_dtype_of_the_base(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", "llama", torch.bfloat16)
    lineage = add_random_adapter(base, tmp_path / "a")
    out = tmp_path / "out"
    out.mkdir()
    write_merged(lineage, Path("/"), out)
    assert stored_dtype(out) == torch.bfloat16
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    model, _ = load_merged(lineage, Path("/"))
    weights = dict(model.causal.named_parameters())
    for name, stored in load_file(out / "model.safetensors").items():
        torch.testing.assert_close(stored, weights[name].to(torch.bfloat16), atol=0, rtol=0)
    assert_same_answers(model, out, 0.1)


def test_adapters_on_quantized_weights_are_added_to_those_of_the_base(tmp_path: Path) -> None:
    """QLoRA keeps its base in 4 bits; what is exported differs from it, and that is said."""
    base = write_model(tmp_path / "base", "llama")
    adapted = add_random_adapter(base, tmp_path / "a")
    merged, warnings = load_merged(adapted, Path("/"))
    assert warnings == []
    lineage = Lineage(adapted.weights, "nf4", adapted.adapters)
    merged_nf4, [warning] = load_merged(lineage, Path("/"))
    assert "trained on weights in nf4" in warning
    for ours, theirs in zip(
        merged.causal.parameters(), merged_nf4.causal.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs)
    config = tmp_path / "base" / "config.json"
    config_values = json.loads(config.read_text()) | {"quantization_config": {"load_in_4bit": True}}
    config.write_text(json.dumps(config_values))
    with pytest.raises(ZephyrError, match=r"are quantized(.|\n)*--to peft"):
        write_merged(lineage, Path("/"), tmp_path)


def test_a_model_with_its_own_template_keeps_it(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    causal = tiny.make_model("qwen2").causal
    causal.resize_token_embeddings(330)
    causal.save_pretrained(folder)
    add_chatml(from_scratch.train_tokenizer(tiny.TEXT * 5, tiny.VOCAB_SIZE)).save_pretrained(folder)
    out = tmp_path / "out"
    out.mkdir()
    template, _ = write_merged(Lineage(str(folder)), Path("/"), out)
    assert len(template.stop_token_ids) == 2
    assert_same_answers(load_model(Lineage(str(folder)), Path("/"), token_budget=256), out, 1e-4)


def test_a_folder_that_reads_prompts_otherwise_is_refused(tmp_path: Path) -> None:
    lineage = write_model(tmp_path / "base", "qwen2")
    out = tmp_path / "out"
    out.mkdir()
    template, _ = write_merged(lineage, Path("/"), out)
    path = out / "chat_template.jinja"
    path.write_text(path.read_text().replace("Human: ", "User: "))
    with pytest.raises(ZephyrError, match="in another way than training did"):
        check_prompts(template, AutoTokenizer.from_pretrained(out))


def test_tokens_that_join_over_the_end_of_a_message_are_reported(tmp_path: Path) -> None:
    """Qwen's pre-tokenizer makes one word of a question mark and the newline after it.

    Of four shapes of conversation with five contents each, one to three messages are not the
    model's: 1 + 2 + 2 + 3 times one of them ends in a question mark.
    """
    warnings = []
    for name, texts in (("joins", ["So?\nYes. "] * 9), ("parts", ["So. Yes "] * 9)):
        causal = tiny.make_model("qwen2").causal
        causal.save_pretrained(tmp_path / name)
        from_scratch.train_tokenizer(texts, tiny.VOCAB_SIZE).save_pretrained(tmp_path / name)
        out = tmp_path / f"{name}-out"
        out.mkdir()
        template, _ = write_merged(Lineage(str(tmp_path / name)), Path("/"), out)
        warnings += check_prompts(template, AutoTokenizer.from_pretrained(out))
    [warning] = warnings
    assert "cut 8 of 20 trial prompts otherwise than training" in warning
