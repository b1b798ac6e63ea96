"""Figures of the benchmarks, by hand and beside Zephyr's own template."""

import copy

import pytest

from bench import page
from bench.evaluation import workloads
from bench.serving.__main__ import MODELS, all_entries
from bench.shared.benchmark import select
from bench.shared.models import TEMPLATE
from bench.shared.tables import Spread, percentile, ratios
from bench.training import rows
from bench.training.figures import agreement, useful_operations
from bench.training.settings import Entry
from tests import tiny
from zephyr.model.template import ChatTemplate
from zephyr.records import Chat, Message, Pair

CONVERSATION = "\n\nHuman: What is 2 + 2?\n\nAssistant: Try it.\n\nHuman: Is it 4?"


def test_counts_are_those_of_the_examples() -> None:
    tokenizer = copy.deepcopy(tiny.tokenizer())
    tokenizer.add_special_tokens(
        {"additional_special_tokens": ["<|im_start|>"], "eos_token": "<|im_end|>"}
    )
    tokenizer.chat_template = TEMPLATE
    prompt = [{"role": "user", "content": "What is 2 + 2?"}]
    data_rows: list[rows.Row] = [
        {"prompt": prompt, "completion": "2 + 2 = 4."},
        {"prompt": prompt, "chosen": "4.", "rejected": "The student asks."},
    ]
    prompt_messages = (Message("user", "What is 2 + 2?"),)
    chat, pair = ChatTemplate(tokenizer).make_examples(
        [
            Chat("rows", (*prompt_messages, Message("assistant", "2 + 2 = 4."))),
            Pair("rows", prompt_messages, "4.", "The student asks."),
        ]
    )
    chosen = len(chat.completions[0].ids) + len(pair.completions[0].ids)
    assert rows.count(data_rows, tokenizer) == rows.Count(
        rows=2,
        tokens=chat.tree_length
        + 1
        + pair.tree_length
        + 2,  # the last token of an answer is never read
        supervised=chat.num_loss_tokens + pair.num_loss_tokens,
        chosen=chosen,
    )


def test_a_conversation_is_cut_into_turns_or_refused() -> None:
    turns = [("user", "What is 2 + 2?"), ("assistant", "Try it."), ("user", "Is it 4?")]
    assert rows._turns(CONVERSATION) == [{"role": r, "content": c} for r, c in turns]
    assert rows._turns(CONVERSATION + "\n\nHuman: Well?") == []
    assert rows._turns(CONVERSATION + "\n\nAssistant: Yes.") == []


def test_operations_of_one_layer_by_hand() -> None:
    counted = rows.Count(rows=1, tokens=10, supervised=3, chosen=3)
    layer = 4 * 1024 * 1024 + 3 * 1024 * 2816
    head = 3 * 4 * 151_936 * 1024
    two = 2 * 8 * (1024 + 1024)  # q and v, from 1,024 to 8 to 1,024
    seven = 4 * 8 * 2048 + 3 * 8 * (1024 + 2816)
    for targets, adapters in (("q, v", two), ("all linear", seven)):
        entry = Entry("sft", "trl", "best", targets)
        assert useful_operations(entry, counted, 1) == 10 * (4 * layer + 6 * adapters) + head


@pytest.mark.parametrize("extra", [0, 1])
def test_nats_of_a_chosen_token_allow_for_what_a_framework_adds(extra: int) -> None:
    counted = rows.Count(rows=2, tokens=40, supervised=20, chosen=8)
    timed = {"supervised": 20 + 4 * extra, "chosen": [-12.0], "loss": [0.69]}
    found = agreement({"passes": [timed]}, counted)
    assert found == {"extra": extra, "nats": 12.0 / (4 + extra)}


def test_ratios_are_taken_within_rounds() -> None:
    ours, theirs = {0: 2.0, 1: 9.0, 2: 4.0}, {0: 1.0, 1: 3.0}
    assert ratios(ours, theirs) == Spread(2.5, 2.0, 3.0)
    assert ratios(ours, {}) is None


def test_agreement_of_evaluations_is_in_nats_a_token() -> None:
    entry = workloads.Entry("hellaswag", "tinystories", 2, 2, (1,))
    ours = {"values": [[-1.0, -2.0], [-3.0, -4.0]]}
    theirs = {"values": [[-1.001, -2.0], [-3.0, -4.002]]}
    found = workloads.agreement(entry, 10, ours, theirs)
    assert found == {"nats": pytest.approx(0.003 / 10), "same": 1.0}
    turned = {"values": [[-1.001, -1.0], [-3.0, -4.002]]}
    with pytest.raises(SystemExit, match="do not agree"):
        workloads.agreement(entry, 10, ours, turned)


def test_answers_agree_if_each_has_the_tokens_of_its_reference() -> None:
    entry = workloads.Entry("gsm8k", "qwen", 2, 2, (1,))
    assert workloads.agreement(entry, 10, {"tokens": 10}, {"tokens": 10})["tokens"] == 10
    with pytest.raises(SystemExit, match="do not agree"):
        workloads.agreement(entry, 10, {"tokens": 10}, {"tokens": 9})


def test_the_best_batch_is_the_fastest_that_did_not_fail() -> None:
    tried = [{"batch": 1, "rate": 2.0}, {"batch": 8, "rate": 3.0}, {"batch": 64, "failed": "oom"}]
    assert workloads.best_batch(tried) == 8


def make_load(users: int, rate: float, *texts: str) -> dict[str, object]:
    first = [0.1, 0.2, 0.3, 0.4, 1.0]
    figures = {"tokens_per_second": rate, "first": first, "prompt_tokens": 100.0}
    return {"users": users, "texts": list(texts), **figures}


def test_a_page_of_servers_compares_within_dtypes_and_rounds() -> None:
    entries = [
        {"name": name, "model": "small", "server": server, "default": default, "dtype": dtype}
        for name, server, default, dtype in (
            ("ours", "zephyr", True, "float32"),
            ("theirs", "transformers", True, "float32"),
            ("half", "transformers", False, "bfloat16"),
        )
    ]
    rates = {"ours": (8.0, 6.0), "theirs": (2.0, 3.0), "half": (1.0, 1.0)}
    measurements = [
        {
            "name": name,
            "round": number,
            "kept": True,
            "loads": [make_load(1, rate, "a", "b"), make_load(8, 2 * rate, "c", name)],
            "start": 5.0,
            "peak_bytes": 2**30,
        }
        for name, each in rates.items()
        for number, rate in enumerate(each)
    ]
    about = {"processor": "a processor", "cores": 2, "python": "3.11"}
    result = {"machine": about, "commit": "0", "date": "today", "rounds": 2, "tokens": 128}
    result |= {"entries": entries, "measurements": measurements}
    result |= {"versions": {"zephyr": {"torch": "2"}}}
    text = page.render_section("serving", [result])
    assert "| Zephyr | float32, default | 300 | 1,000 | 7.00 (6.00 – 8.00) |" in text
    assert "| transformers | float32 | 3.00 (2.00 – 4.00) | 3.00 (2.00 – 4.00) | 1.00 |" in text
    assert "| transformers | float32 | 3 of 4 | 100.0 |" in text
    assert "| transformers | bfloat16 | 1.00 |" not in text  # nothing of ours to compare with


def test_a_share_of_the_values_exceeds_no_percentile() -> None:
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile(range(1, 11), 0.9) == 9
    assert percentile([7], 0.9) == 7


def test_lines_of_a_benchmark_of_servers_are_chosen_by_parts_of_their_names() -> None:
    found = select(all_entries(MODELS), ["small · zephyr"])
    assert [entry.name for entry in found] == ["small · zephyr · default"]
    assert len(select(all_entries(MODELS), [])) == 14
