"""What is wrong ends in one clear message and code 2, with no traceback and nothing half done."""

import errno
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, normalizers
from transformers import PreTrainedTokenizerFast

from tests import tiny
from tests.workspace import Command, write_files
from zephyr.engine import stages
from zephyr.errors import ZephyrError
from zephyr.model import from_scratch
from zephyr.model.load import Lineage, load_model
from zephyr.runs.context import Context
from zephyr.runs.graph import Node
from zephyr.runs.store import Run
from zephyr.train import loop

Change = Callable[["RecipeWorkspace"], None]


@dataclass
class RecipeWorkspace:
    """A folder with a recipe, its files and a base model: good until something is changed."""

    folder: Path
    command: Command
    patch: pytest.MonkeyPatch

    def zephyr(self, *arguments: str) -> tuple[int, str]:
        """Runs the command line; gives its exit code and its errors, the folder left out."""
        code, out, err = self.command(*arguments)
        assert "Traceback" not in out + err, err
        return code, err.replace(f"{self.folder}/", "")

    def edit_recipe(self, change: Callable[[dict[str, Any]], Any]) -> None:
        """Changes what the recipe says."""
        value = yaml.safe_load((self.folder / "small.yaml").read_text())
        change(value)
        (self.folder / "small.yaml").write_text(yaml.safe_dump(value, sort_keys=False))

    def write_file(self, name: str, data: str | bytes) -> None:
        (self.folder / name).write_bytes(data.encode() if isinstance(data, str) else data)

    @property
    def finished_nodes(self) -> set[str]:
        """The nodes that have been made."""
        known = json.loads((self.folder / "runs/small/nodes.json").read_text())["nodes"]
        objects = self.folder / "runs/objects"
        return {n["name"] for n in known if (objects / n["fingerprint"]).exists()}


RECIPE = """\
name: small
data:
  sft: {kind: chat, holdout: 0.1, sources: [{path: chat.jsonl}]}
  pairs: {kind: pair, sources: [{path: pairs.jsonl}]}
models:
  M0: {base: base}
  M1: {from: M0, tune: {data: sft, steps: 2, batch: 4, lr: 1e-3, lora: {rank: 2}}}
  M2: {from: M1, align: {data: pairs, steps: 2, batch: 4}}
evaluate:
  tasks:
  - {name: mcqa, sources: [{path: quiz.jsonl}]}
"""


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama as people download it."""
    folder = tmp_path_factory.mktemp("base")
    model = tiny.make_model("llama")
    model.causal.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    load_model(Lineage(str(folder)), folder, token_budget=256)  # imports what every fork needs
    return folder


@pytest.fixture
def workspace(
    tmp_path: Path, base_folder: Path, zephyr: Command, monkeypatch: pytest.MonkeyPatch
) -> RecipeWorkspace:
    write_files(tmp_path)
    shutil.copytree(base_folder, tmp_path / "base")
    (tmp_path / "small.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZEPHYR_RUNS", str(tmp_path / "runs"))
    return RecipeWorkspace(tmp_path, zephyr, monkeypatch)


def test_what_is_good_ends_well(workspace: RecipeWorkspace) -> None:
    assert workspace.zephyr("eval", "M2", "mcqa", "-r", "small.yaml") == (0, "")
    assert workspace.finished_nodes == {"data.sft", "data.pairs", "M0", "M1", "M2", "M2/mcqa"}


# -- what is seen before anything is made ---------------------------------------------------------


def change_tune(**settings: Any) -> Change:
    return lambda workspace: workspace.edit_recipe(
        lambda r: r["models"]["M1"]["tune"].update(settings)
    )


def change_source(**settings: Any) -> Change:
    return lambda workspace: workspace.edit_recipe(
        lambda r: r["data"]["sft"].update(sources=[settings])
    )


def change_task(**settings: Any) -> Change:
    return lambda workspace: workspace.edit_recipe(lambda r: r["evaluate"].update(tasks=[settings]))


PLAN_ERRORS: dict[str, tuple[Change, str]] = {
    "a missing file": (
        change_source(path="none.jsonl"),
        """\
Error: a file is not there
  where:   data.sft
  found:   none.jsonl
  to do:   mend `path`: it is taken from the folder of the recipe
""",
    ),
    "an empty file": (
        lambda workspace: workspace.write_file("chat.jsonl", ""),
        """\
Error: a file is empty
  where:   data.sft
  found:   chat.jsonl
""",
    ),
    "a file of no known format": (
        lambda workspace: (
            workspace.write_file("chat.docx", "x"),
            change_source(path="chat.docx")(workspace),
        )[1],
        """\
Error: a file is of no format that can be read
  where:   data.sft
  found:   chat.docx
  allowed: .json, .jsonl, .csv, .tsv, .parquet, .txt, .raw, .tokens, and each with .gz
""",
    ),
    "an unknown key": (
        change_tune(lrr=1),
        """\
Error: unknown key 'models.M1.tune.lrr'
  where:   small.yaml:24
  allowed: batch, beta2, canary_tokens, clip, data, epochs, evaluate_every, keep, load, log_every, \
lora, lr, max_length, overlong, schedule, steps, warmup, weight_decay
  nearest: lr
""",
    ),
    "an unknown source": (
        change_source(name="gsmk8"),
        """\
Error: unknown source 'gsmk8'
  where:   data.sft
  allowed: arc_challenge, arc_easy, arxiv_math, code_alpaca, code_assistant, \
code_vulnerability, dpo_mix_zero_math_untoxic, epfl, exp_dpo_3, goat, gsm8k, gsm8k_socratic, \
h4rmony, hellaswag, khan_academy, lima, magicoder, math_college, math_instruct, mathdial, \
metamathqa, mmlu, open_platypus, orca_dpo_pairs, primer, py_dpo, shp_askengineers, shp_askphysics, \
shp_askscience, shp_explainlikeimfive, truthy_dpo, votes, wiki_qa, wiki_qa_all, wikitext2
  nearest: gsm8k
  to do:   name one of these, or give a `path:` or a `hub:` of your own
""",
    ),
    "an unknown task": (
        change_task(name="helaswag"),
        """\
Error: unknown task 'helaswag'
  where:   evaluate.tasks
  allowed: footprint, gsm8k, hellaswag, lessons, mcqa, mcqa_letter, mcqa_written, preferences, \
tutoring, wikitext2, wikitext2_pages, wikitext2_strided
  nearest: hellaswag
""",
    ),
    "a task that asks nothing": (
        change_task(name="preferences"),
        """\
Error: task 'preferences' needs to know what to ask
  where:   evaluate.tasks.preferences
  to do:   name a mixture with `data:`, whose hold-out is asked, or give `sources:`
""",
    ),
    "a task twice": (
        lambda workspace: workspace.edit_recipe(
            lambda r: r["evaluate"].update(tasks=2 * r["evaluate"]["tasks"])
        ),
        """\
Error: task 'mcqa' is named twice
  where:   evaluate.tasks
  to do:   give one of them a `label`
""",
    ),
    "an unknown model": (
        lambda workspace: workspace.edit_recipe(
            lambda r: r["models"]["M1"].update({"from": "M00"})
        ),
        """\
Error: unknown model 'M00'
  where:   models.M1.from
  allowed: M0, M1, M2
  nearest: M0
""",
    ),
    "an unknown model to be asked": (
        lambda workspace: workspace.edit_recipe(lambda r: r["evaluate"].update(models=["M3"])),
        """\
Error: unknown model 'M3'
  where:   evaluate.models
  allowed: M0, M1, M2
  nearest: M2
""",
    ),
    "an unknown mixture": (
        change_tune(data="stf"),
        """\
Error: unknown mixture 'stf'
  where:   models.M1.tune.data
  allowed: pairs, sft
  nearest: sft
  to do:   name one under `data:`
""",
    ),
    "a mixture of another kind": (
        change_tune(data="pairs"),
        """\
Error: mixture 'pairs' is of the wrong kind
  where:   models.M1.tune.data
  found:   pair
  allowed: chat
""",
    ),
    "a circle of models": (
        lambda workspace: workspace.edit_recipe(
            lambda r: r["models"].update(M0={"from": "M2", "quantize": "nf4"})
        ),
        """\
Error: the models of this recipe come from each other in a circle
  found:   M0 -> M1 -> M2 -> M0
  to do:   give one of them a `base` or `pretrain`
""",
    ),
    "a learning rate below zero": (
        change_tune(lr=-1),
        """\
Error: models.M1.tune.lr: must be greater than 0
  where:   small.yaml:21
  found:   -1
""",
    ),
    "a key of another tool": (
        change_tune(learning_rate=1e-4),
        """\
Error: unknown key 'models.M1.tune.learning_rate'
  where:   small.yaml:24
  allowed: batch, beta2, canary_tokens, clip, data, epochs, evaluate_every, keep, load, log_every, \
lora, lr, max_length, overlong, schedule, steps, warmup, weight_decay
  nearest: lr
""",
    ),
    "a decimal comma": (
        change_tune(lr="0,001"),
        """\
Error: models.M1.tune.lr: must be a number
  where:   small.yaml:21
  found:   '0,001'
  to do:   write a decimal point: 0.001
""",
    ),
    "a word for a number": (
        change_tune(batch="eight"),
        """\
Error: models.M1.tune.batch: must be a whole number
  where:   small.yaml:20
  found:   'eight'
""",
    ),
    "a batch of nothing": (
        change_tune(batch=0),
        """\
Error: models.M1.tune.batch: must be greater than 0
  where:   small.yaml:20
  found:   0
""",
    ),
    "the best of no evaluations": (
        change_tune(keep="best loss"),
        """\
Error: models.M1.tune: `keep: best loss` needs `evaluate_every`
  where:   small.yaml:17
""",
    ),
    "the best by what is not measured": (
        change_tune(keep="best accuracy", evaluate_every=1),
        """\
Error: models.M1.tune: `keep: best accuracy` needs pairs: it belongs to `align`
  where:   small.yaml:17
""",
    ),
    "the best without a hold-out": (
        lambda workspace: workspace.edit_recipe(
            lambda r: r["models"]["M2"]["align"].update(keep="best margin", evaluate_every=1)
        ),
        """\
Error: without a hold-out no evaluation is the best
  where:   models.M2.align
  found:   keep: best margin
  to do:   set data.pairs.holdout, or `keep: last`
""",
    ),
    "a rank of nothing": (
        change_tune(lora={"rank": 0}),
        """\
Error: models.M1.tune.lora.rank: must be greater than 0
  where:   small.yaml:23
  found:   0
""",
    ),
    "a hold-out of more than all": (
        lambda workspace: workspace.edit_recipe(lambda r: r["data"]["sft"].update(holdout=1.2)),
        """\
Error: data.sft.holdout: must be less than 1
  where:   small.yaml:5
  found:   1.2
""",
    ),
    "a base that is not there": (
        lambda workspace: workspace.edit_recipe(lambda r: r["models"]["M0"].update(base="bse")),
        """\
Error: this base model is not there
  where:   models.M0.base
  found:   bse
  allowed: a folder in Hugging Face format, a GGUF file, an id of the hub (org/name), or one of \
smollm2-135m-instruct, smollm2-360m-instruct, qwen1.5-0.5b-chat, qwen2.5-0.5b-instruct, \
qwen3-0.6b, bloom-560m
  to do:   give the path of a folder with config.json, *.safetensors and tokenizer.json
""",
    ),
    "a variable that is not set": (
        change_source(path="${ZEPHYR_TEST_NOWHERE}/x.jsonl"),
        """\
Error: the variable ZEPHYR_TEST_NOWHERE is not set
  where:   small.yaml:7
  found:   ${ZEPHYR_TEST_NOWHERE}/x.jsonl
  to do:   export ZEPHYR_TEST_NOWHERE=... before you run this recipe
""",
    ),
    "a value that is none": (
        lambda workspace: workspace.write_file("small.yaml", "name: 2026-13-01\n"),
        """\
Error: this value can't be read
  where:   small.yaml:1
  found:   2026-13-01
""",
    ),
    "a recipe within itself": (
        lambda workspace: workspace.write_file("small.yaml", "name: small\ndata: &a {sft: *a}\n"),
        """\
Error: this recipe is nested without end
  where:   small.yaml
  to do:   remove aliases
""",
    ),
}


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize("case", PLAN_ERRORS)
def test_it_is_said_before_anything_is_made(
    workspace: RecipeWorkspace, case: str, command: str
) -> None:
    change, expected = PLAN_ERRORS[case]
    change(workspace)
    assert workspace.zephyr(command, "small.yaml") == (2, expected)
    assert not (workspace.folder / "runs").exists()


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("models.M1.tune.lr", "an override is written as key=value"),
        ("models.M1.tune.lr=[1", "the value of this override can't be read"),
        ("models.M1.tune.lr=!!int x", "the value of this override can't be read"),
        ("data.sft.sources.none.cap=1", "this override leads nowhere"),
        ("name.x=1", "this override leads nowhere"),
        ("models.M1.tune.lrr=1", "unknown key 'models.M1.tune.lrr'"),
    ],
)
def test_wrong_overrides(workspace: RecipeWorkspace, override: str, problem: str) -> None:
    code, errors = workspace.zephyr("run", "small.yaml", "--set", override)
    assert (code, errors.splitlines()[0]) == (2, f"Error: {problem}")
    assert not (workspace.folder / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("run", "smal.yaml"), "this recipe is not there"),
        (("run", "embeded"), "unknown recipe 'embeded'"),
        (("why", "M3", "-r", "small.yaml"), "unknown node 'M3'"),
        (("eval", "M1", "mcq", "-r", "small.yaml"), "unknown evaluation 'M1/mcq'"),
        (("chat", "M3", "-r", "small.yaml"), "unknown model 'M3'"),
        (("chat", "M1", "-r", "small.yaml"), "M1 is not made yet"),
        (("report", "small.yaml"), "recipe small has not been run here"),
        (("serve", "-r", "small.yaml"), "no model of small is made yet"),
    ],
)
def test_wrong_arguments(
    workspace: RecipeWorkspace, arguments: tuple[str, ...], problem: str
) -> None:
    code, errors = workspace.zephyr(*arguments)
    assert (code, errors.splitlines()[0]) == (2, f"Error: {problem}")
    assert not (workspace.folder / "runs").exists()


def test_serve_says_which_recipe_to_run(workspace: RecipeWorkspace) -> None:
    """That of tutor.yaml, beside it; and others that were run here."""
    (workspace.folder / "tutor.yaml").write_text("recipe: small.yaml\n")
    (workspace.folder / "runs" / "other").mkdir(parents=True)
    (workspace.folder / "runs" / "other" / "nodes.json").write_text("{}")
    code, errors = workspace.zephyr("serve", "--tutor", "tutor.yaml")
    assert (code, errors) == (
        2,
        """\
Error: no model of small is made yet
  where:   runs
  to do:   zephyr run small.yaml; or serve another recipe with --recipe (run \
here: other)
""",
    )


def test_an_unknown_key_is_named_wherever_it_stands(workspace: RecipeWorkspace) -> None:
    """In each mapping of the recipe in turn."""
    whole_recipe = yaml.safe_load(RECIPE)

    def mapping_paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        inner: list[tuple[Any, Any]] = []
        if isinstance(value, dict):
            inner = list(value.items())
            if at not in (("data",), ("models",)):
                yield at
        elif isinstance(value, list):
            inner = list(enumerate(value))
        for key, part in inner:
            yield from mapping_paths(part, (*at, key))

    found = list(mapping_paths(whole_recipe))
    assert len(found) == 14
    for at in found:

        def add(recipe: dict[str, Any], at: tuple[Any, ...] = at) -> None:
            here: Any = recipe
            for key in at:
                here = here[key]
            here["nonsense"] = 1

        workspace.write_file("small.yaml", RECIPE)
        workspace.edit_recipe(add)
        code, errors = workspace.zephyr("plan", "small.yaml")
        key = ".".join(map(str, (*at, "nonsense")))
        assert (code, errors.splitlines()[0]) == (2, f"Error: unknown key {key!r}")
        assert "allowed: " in errors


# -- what is seen by a worker ---------------------------------------------------------------------


def change_weights(change: Callable[[dict[str, Any]], Any]) -> Change:
    def apply(workspace: RecipeWorkspace) -> None:
        path = workspace.folder / "base/model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, metadata={"format": "pt"})

    return apply


def change_json(file: str, **settings: Any) -> Change:
    def apply(workspace: RecipeWorkspace) -> None:
        path = workspace.folder / file
        known = json.loads(path.read_text()) | settings
        path.write_text(json.dumps({k: v for k, v in known.items() if v is not None}))

    return apply


def truncate_weights(workspace: RecipeWorkspace) -> None:
    path = workspace.folder / "base/model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


CHAT_COLUMNS = """\
messages; conversations; instruction, output; question, answer; prompt, completion; \
prompt, response"""
DOWNLOAD_HINT = "download the whole model in Hugging Face format, safetensors included"
QUESTION_ROW = '{"question": "Why?", "answer": "So."}\n'


def remove_end_token(workspace: RecipeWorkspace) -> None:
    """Gives the base a tokenizer without the end token that its class would know by itself."""
    text = (
        (workspace.folder / "base" / "tokenizer.json").read_text().replace("<|endoftext|>", "<|a|>")
    )
    core = Tokenizer.from_str(text)
    core.normalizer = normalizers.Lowercase()
    PreTrainedTokenizerFast(tokenizer_object=core).save_pretrained(workspace.folder / "base")


WORKER_ERRORS: dict[str, tuple[Change, str]] = {
    "broken JSON": (
        lambda workspace: (
            workspace.write_file("c.json", '[{"a": 1},\n{"a": }]'),
            change_source(path="c.json")(workspace),
        )[1],
        """\
data.sft failed: a file is not valid JSON
  where:   c.json:2
  found:   Expecting value: line 2 column 7 (char 17)
  to do:   mend it, or name it .jsonl if each line is a value of its own
Not tried: M1, M1/mcqa
""",
    ),
    "a broken line": (
        lambda workspace: workspace.write_file(
            "chat.jsonl", QUESTION_ROW * 2 + '{"question": \n' + QUESTION_ROW
        ),
        """\
data.sft failed: too many rows of source 'chat' can't be read
  where:   chat.jsonl:3
  found:   1 of 4 rows: 1 x not valid JSON
  allowed: a share of 0.05 (`unreadable`)
  to do:   mend the rows, map their names with `columns`, or raise `unreadable`
Not tried: M1, M1/mcqa
""",
    ),
    "a row without its answer": (
        lambda workspace: workspace.write_file(
            "chat.jsonl", QUESTION_ROW * 2 + '{"question": "Who?"}\n' + QUESTION_ROW
        ),
        """\
data.sft failed: too many rows of source 'chat' can't be read
  where:   chat.jsonl:3
  found:   1 of 4 rows: 1 x column 'answer' is missing
  allowed: a share of 0.05 (`unreadable`)
  to do:   mend the rows, map their names with `columns`, or raise `unreadable`
Not tried: M1, M1/mcqa
""",
    ),
    "a wrong name of a column": (
        lambda workspace: workspace.write_file(
            "chat.jsonl", QUESTION_ROW.replace("answer", "anwser") * 4
        ),
        f"""\
data.sft failed: the columns of this source are of no form that is known for kind 'chat'
  where:   data.sft, chat.jsonl:1
  found:   anwser, question
  allowed: {CHAT_COLUMNS}
  nearest: answer -> anwser
  to do:   map the names with `columns: {{name that is allowed: name in the file}}`
Not tried: M1, M1/mcqa
""",
    ),
    "a mixture of which nothing is left": (
        lambda workspace: (
            workspace.write_file(
                "qa.jsonl", '{"question": "Why?", "answer": "So.", "label": 0}\n' * 3
            ),
            change_source(path="qa.jsonl", name="wiki_qa")(workspace),
        )[1],
        """\
data.sft failed: a mixture is empty
  found:   wiki_qa: 3 rows, 3 x the answer is marked as wrong
  to do:   give it a source with rows that are wanted
Not tried: M1, M1/mcqa
""",
    ),
    "a mixture that is held out": (
        lambda workspace: workspace.write_file("chat.jsonl", QUESTION_ROW),
        """\
data.sft failed: a mixture holds out all that it has
  found:   1 records of 1 questions
  to do:   give it more rows, or a smaller `holdout`: a question is never on both sides
Not tried: M1, M1/mcqa
""",
    ),
    "a base without weights": (
        lambda workspace: (workspace.folder / "base/model.safetensors").unlink(),
        f"""\
M0 failed: a model folder lacks weights as *.safetensors (pickled weights are refused)
  where:   base
  found:   chat_template.jinja, config.json, generation_config.json, tokenizer.json, \
tokenizer_config.json
  to do:   {DOWNLOAD_HINT}
Not tried: M1, M1/mcqa
""",
    ),
    "a base without a tokenizer": (
        lambda workspace: (workspace.folder / "base/tokenizer.json").unlink(),
        f"""\
M0 failed: a model folder lacks a tokenizer (tokenizer.json)
  where:   base
  found:   chat_template.jinja, config.json, generation_config.json, model.safetensors, \
tokenizer_config.json
  to do:   {DOWNLOAD_HINT}
Not tried: M1, M1/mcqa
""",
    ),
    "a tokenizer that is none": (
        lambda workspace: workspace.write_file(
            "base/tokenizer.json", '{"added_tokens": [], "model": {}}'
        ),
        f"""\
M0 failed: this tokenizer can't be read
  where:   base
  found:   Exception: data did not match any variant of untagged enum ModelUntagged at line 1 \
column 33
  to do:   {DOWNLOAD_HINT}
Not tried: M1, M1/mcqa
""",
    ),
    "a tokenizer without an end token": (
        remove_end_token,
        """\
M0 failed: the tokenizer has no end token
  where:   base
  to do:   set `eos_token` in its tokenizer_config.json: an answer must be able to end
Not tried: M1, M1/mcqa
""",
    ),
    "the tokenizer of another model": (
        lambda workspace: from_scratch.train_tokenizer(
            ["".join(map(chr, range(200, 600)))], 700
        ).save_pretrained(workspace.folder / "base"),
        f"""\
M0 failed: the tokenizer in this folder is not that of the network
  where:   base
  found:   a vocabulary of 700 tokens
  allowed: at most 320
  to do:   {DOWNLOAD_HINT}
Not tried: M1, M1/mcqa
""",
    ),
    "weights that are cut short": (
        truncate_weights,
        f"""\
M0 failed: this network can't be read
  where:   base
  found:   SafetensorError: Error while deserializing header: incomplete metadata, file not \
fully covered
  to do:   {DOWNLOAD_HINT}
Not tried: M1, M1/mcqa
""",
    ),
    "weights of which one is missing": (
        change_weights(lambda tensors: tensors.pop("model.norm.weight")),
        f"""\
M0 failed: the weights in this folder are not those that config.json tells of
  where:   base
  found:   1 missing or of another size, such as model.norm.weight
  to do:   {DOWNLOAD_HINT}
Not tried: M1, M1/mcqa
""",
    ),
    "weights of another size": (
        change_json("base/config.json", intermediate_size=32),
        f"""\
M0 failed: the weights in this folder are not those that config.json tells of
  where:   base
  found:   6 missing or of another size, such as model.layers.0.mlp.down_proj.weight
  to do:   {DOWNLOAD_HINT}
Not tried: M1, M1/mcqa
""",
    ),
    "examples that are too long": (
        change_tune(max_length=4),
        """\
M1 failed: no example fits the model
  found:   57 examples, each longer than 4 tokens
  to do:   raise `max_length`, take shorter examples, or set `overlong: cut`
Not tried: M1/mcqa
""",
    ),
    "a task with nothing to ask": (
        lambda workspace: workspace.write_file(
            "quiz.jsonl", '{"question": "x", "choices": ["a"], "answer": 0}\n'
        ),
        """\
data.sft failed: too many rows of source 'quiz' can't be read
  where:   quiz.jsonl:1
  found:   1 of 1 rows: 1 x there are fewer than two options
  allowed: a share of 0.1 (`unreadable`)
  to do:   mend the rows, map their names with `columns`, or raise `unreadable`
Not tried: M1, M1/mcqa
""",
    ),
}


@pytest.mark.parametrize("case", WORKER_ERRORS)
def test_a_worker_says_it_and_what_needs_it_is_not_tried(
    workspace: RecipeWorkspace, case: str
) -> None:
    change, expected = WORKER_ERRORS[case]
    change(workspace)
    assert workspace.zephyr("eval", "M1", "mcqa", "-r", "small.yaml") == (2, expected)
    failed = expected.split(" failed: ", maxsplit=1)[0]
    order = ["data.sft", "M0", "M1", "M1/mcqa"]
    expected_nodes = {"data.sft": {"M0"}, "M0": {"data.sft"}}.get(
        failed, set(order[: order.index(failed)])
    )
    assert workspace.finished_nodes == expected_nodes
    code, errors = workspace.zephyr("plan", "small.yaml")
    assert (code, errors) == (0, "")


def test_when_it_is_mended_the_same_command_goes_on(workspace: RecipeWorkspace) -> None:
    path = workspace.folder / "base/model.safetensors"
    content = path.read_bytes()
    truncate_weights(workspace)
    assert workspace.zephyr("eval", "M1", "mcqa", "-r", "small.yaml")[0] == 2
    path.write_bytes(content)
    assert workspace.zephyr("eval", "M1", "mcqa", "-r", "small.yaml") == (0, "")
    assert workspace.finished_nodes == {"data.sft", "M0", "M1", "M1/mcqa"}


def test_one_bad_question_is_left_out_and_named(workspace: RecipeWorkspace) -> None:
    rows = [{"question": f"Q{n}?", "choices": ["x", "y"], "answer": "A"} for n in range(5)]
    rows[2]["answer"] = "A,B"
    workspace.write_file("quiz.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert workspace.zephyr("eval", "M0", "mcqa", "-r", "small.yaml") == (0, "")
    nodes = json.loads((workspace.folder / "runs/small/nodes.json").read_text())["nodes"]
    [fingerprint] = [node["fingerprint"] for node in nodes if node["name"] == "M0/mcqa"]
    run = workspace.folder / "runs/objects" / fingerprint
    scores = json.loads((run / "artifact/scores.json").read_text())
    assert scores["counts"] == {"can't be read": 1}
    assert {metric["n"] for metric in scores["metrics"]} == {4}
    notices = json.loads((run / "env.json").read_text())["told"]
    assert notices == [
        "the keys of source 'quiz' are read: 4 as a letter",
        (
            "1 of 5 rows of source 'quiz' left out: the answer names more than one option (at "
            f"{workspace.folder}/quiz.jsonl:3)"
        ),
    ]
    task = {"name": "mcqa", "sources": [{"path": "quiz.jsonl"}], "unreadable": 0}
    change_task(**task)(workspace)
    code, errors = workspace.zephyr("eval", "M0", "mcqa", "-r", "small.yaml")
    assert code == 2
    assert "1 of 5 rows" in errors


# -- a full disk ----------------------------------------------------------------------------------

EVAL_COMMAND = ("eval", "M2", "mcqa", "-r", "small.yaml")


@pytest.fixture
def small_disk(workspace: RecipeWorkspace) -> Iterator[Callable[[int], None]]:
    """Keeps the runs on a disk of their own, of as many kilobytes as it is called with."""
    runs = workspace.folder / "runs"
    runs.mkdir()

    def size(kilobytes: int) -> None:
        again = ",remount" if os.path.ismount(runs) else ""
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k{again}", "tmpfs", str(runs)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("only root may mount a disk of a given size")

    yield size
    if os.path.ismount(runs):
        subprocess.run(["umount", str(runs)], check=True)


@pytest.mark.parametrize(
    ("kilobytes", "failed"),
    [(4, set()), (24, {"data.sft", "data.pairs", "M0"}), (112, {"M1"}), (200, {"M2"})],
)
def test_a_full_disk_and_more_space(
    workspace: RecipeWorkspace, small_disk: Callable[[int], None], kilobytes: int, failed: set[str]
) -> None:
    """A real one: what fails while a library writes weights is reported like all else."""
    small_disk(kilobytes)
    code, errors = workspace.zephyr(*EVAL_COMMAND)
    assert code == 2
    full_disk_names = {
        line.split(" failed: ")[0] for line in errors.splitlines() if "the disk is full" in line
    }
    assert full_disk_names == (failed or {"Error: the disk is full"})
    assert (
        errors.count("the disk is full")
        == errors.count("  to do:   free some space")
        == len(full_disk_names)
    )
    small_disk(50_000)
    assert workspace.zephyr(*EVAL_COMMAND) == (0, "")
    assert workspace.finished_nodes == {"data.sft", "data.pairs", "M0", "M1", "M2", "M2/mcqa"}


@pytest.mark.parametrize(
    ("file", "start", "skipped"),
    [
        ("nodes.json", "Error:", ""),
        ("model.json", "M0 failed:", "Not tried: M1, M2, M2/mcqa\n"),
        ("examples.json", "M1 failed:", "Not tried: M2, M2/mcqa\n"),
        ("scores.json", "M2/mcqa failed:", ""),
    ],
)
def test_a_disk_that_is_full_at_one_file(
    workspace: RecipeWorkspace, file: str, start: str, skipped: str
) -> None:
    """As the system tells it, for where no disk may be mounted."""
    more_space = workspace.folder / "more space"
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.name == f"{file}.tmp" and not more_space.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    workspace.patch.setattr(os, "fsync", fsync)
    code, errors = workspace.zephyr(*EVAL_COMMAND)
    where = errors.splitlines()[1]
    assert where.startswith("  where:   runs/")
    assert where.endswith(f"/{file}")
    todo = "free some space and run the same command again: finished stages are kept"
    expected = f"{start} the disk is full\n{where}\n  to do:   {todo}\n{skipped}"
    assert (code, errors) == (2, expected)
    more_space.touch()
    assert workspace.zephyr(*EVAL_COMMAND) == (0, "")
    assert workspace.finished_nodes == {"data.sft", "data.pairs", "M0", "M1", "M2", "M2/mcqa"}


# -- workers that end -----------------------------------------------------------------------------


def test_a_worker_that_is_killed(workspace: RecipeWorkspace) -> None:
    """As the system does when memory runs out."""
    original_run_stage = stages.run_stage

    def run_stage(node: Node, *rest: Any) -> None:
        if node.kind == "tune":
            os.kill(os.getpid(), signal.SIGKILL)
        original_run_stage(node, *rest)

    workspace.patch.setattr(stages, "run_stage", run_stage)
    expected = """\
M1 failed: the process that made M1 ended with code -9
  to do:   it was killed; if memory ran out, lower run.token_budget or run.jobs
Not tried: M1/mcqa
"""
    assert workspace.zephyr("eval", "M1", "mcqa", "-r", "small.yaml") == (2, expected)
    assert workspace.finished_nodes == {"data.sft", "M0"}
    workspace.patch.setattr(stages, "run_stage", original_run_stage)
    assert workspace.zephyr("eval", "M1", "mcqa", "-r", "small.yaml") == (0, "")


def test_run_says_what_failed_after_the_report_of_the_rest(workspace: RecipeWorkspace) -> None:
    workspace.write_file("chat.jsonl", QUESTION_ROW)
    _, expected = WORKER_ERRORS["a mixture that is held out"]
    skipped = "M1, M2, M2/mcqa, M1/mcqa"
    assert workspace.zephyr("run", "small.yaml") == (2, expected.replace("M1, M1/mcqa", skipped))
    assert workspace.finished_nodes == {"data.pairs", "M0", "M0/mcqa"}


def act_in_phase(
    phase: str, action: Callable[[Context], None]
) -> Callable[[Node, Any, Run, Context], None]:
    """A `run_stage` in which M1 acts once, when it has said that it is in a phase."""
    original_run_stage = stages.run_stage

    def run_stage(node: Node, inputs: Any, run: Run, context: Context) -> None:
        acted = False

        def progress(current: str, done: int, total: int, row: dict[str, Any]) -> None:
            nonlocal acted
            context.progress(current, done, total, row)
            if node.name == "M1" and current == phase and not acted:
                acted = True
                action(context)

        original_run_stage(node, inputs, run, replace(context, progress=progress))

    return run_stage


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_whoever_stops_it_training_writes_a_checkpoint(
    workspace: RecipeWorkspace, number: int
) -> None:
    """Ctrl-C and what a scheduler sends reach all processes; the engine alone acts on them."""
    original_run_stage = stages.run_stage

    def stop_all(context: Context) -> None:
        for process in (os.getpid(), os.getppid()):
            os.kill(process, number)
        while not context.should_stop():
            time.sleep(0.001)

    workspace.patch.setattr(stages, "run_stage", act_in_phase("hold-out", stop_all))
    stopped = "Stopped. What is finished is kept; to go on: zephyr run small.yaml\n"
    assert workspace.zephyr(*EVAL_COMMAND) == (130, stopped)
    assert workspace.finished_nodes == {"data.sft", "data.pairs", "M0"}
    [part] = (workspace.folder / "runs/objects").glob("*.part/checkpoints")
    assert [path.name for path in part.iterdir()] == ["step-00000000"]
    workspace.patch.setattr(stages, "run_stage", original_run_stage)
    assert workspace.zephyr(*EVAL_COMMAND) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_waits_for_no_checkpoint(workspace: RecipeWorkspace, number: int) -> None:
    def stop_twice_and_hang(context: Context) -> None:
        os.kill(os.getppid(), number)
        while not context.should_stop():
            time.sleep(0.001)
        os.kill(os.getppid(), number)
        while True:
            time.sleep(1)

    original_run_stage = stages.run_stage
    workspace.patch.setattr(stages, "run_stage", act_in_phase("training", stop_twice_and_hang))
    stopped = "Stopped. What is finished is kept; to go on: zephyr run small.yaml\n"
    assert workspace.zephyr(*EVAL_COMMAND) == (130, stopped)
    workspace.patch.setattr(stages, "run_stage", original_run_stage)
    assert workspace.zephyr(*EVAL_COMMAND) == (0, "")


# -- runs that go on ------------------------------------------------------------------------------


@pytest.fixture
def interrupted_run(workspace: RecipeWorkspace) -> Path:
    """The folder of M1 after three of its four steps."""
    rate = loop.learning_rate

    def learning_rate(spec: Any, step: int, steps: int) -> float:
        if step == 3:
            raise ZephyrError("broken off")
        return rate(spec, step, steps)

    change_tune(steps=4)(workspace)
    workspace.edit_recipe(lambda recipe: recipe.update(run={"checkpoint_every": 1}))
    workspace.patch.setattr(loop, "learning_rate", learning_rate)
    broken = "M1 failed: broken off\nNot tried: M1/mcqa\n"
    assert workspace.zephyr("eval", "M1", "mcqa", "-r", "small.yaml") == (2, broken)
    workspace.patch.setattr(loop, "learning_rate", rate)
    [part] = (workspace.folder / "runs/objects").glob("*.part")
    return part


def test_a_damaged_checkpoint_is_shown_and_remembered(
    workspace: RecipeWorkspace, interrupted_run: Path
) -> None:
    weights = interrupted_run / "checkpoints/step-00000003/weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    code, out, err = workspace.command("eval", "M1", "mcqa", "-r", "small.yaml")
    assert (code, err) == (0, "")
    warning = (
        "a checkpoint can't be used (step-00000003: the checksum of weights.safetensors differs): "
        "training goes on from step 2"
    )
    assert f"M1: {warning}" in " ".join(out.split())
    why_output = " ".join(workspace.command("why", "M1", "-r", "small.yaml").out.split())
    assert why_output.endswith(f"note: {warning}")


def test_another_machine_uses_the_threads_of_the_first_and_says_so(
    workspace: RecipeWorkspace, interrupted_run: Path
) -> None:
    env = json.loads((interrupted_run / "env.json").read_text())
    assert env["threads"] == 1
    env["threads"] = 2
    env["versions"]["torch"] = "2.11.0"
    (interrupted_run / "env.json").write_text(json.dumps(env))
    counts: list[int] = []
    workspace.patch.setattr(torch, "set_num_threads", counts.append)
    original_run_stage = stages.run_stage

    def run_stage(node: Node, *rest: Any) -> None:
        assert counts[-1] == (2 if node.name == "M1" else 1)
        original_run_stage(node, *rest)

    workspace.patch.setattr(stages, "run_stage", run_stage)
    code, out, err = workspace.command("eval", "M1", "mcqa", "-r", "small.yaml", "-s", "run.jobs=3")
    assert (code, err) == (0, "")
    output = " ".join(out.split())
    assert "M1: it was begun with 2 threads and goes on with as many" in output
    assert "this machine has 1 cores, and will be slow" in output
    assert f"(torch 2.11.0 -> {torch.__version__}): the result may differ" in output
    final_env = json.loads((interrupted_run.with_suffix("") / "env.json").read_text())
    assert (final_env["threads"], final_env["versions"]["torch"]) == (2, "2.11.0")
    assert len(final_env["told"]) == 2


def test_settings_of_a_run_that_are_damaged(
    workspace: RecipeWorkspace, interrupted_run: Path
) -> None:
    (interrupted_run / "env.json").write_text('{"threads"')
    where = f"runs/objects/{interrupted_run.name}"
    expected = f"""\
M1 failed: what an unfinished run was begun with can't be read
  where:   {where}/env.json
  found:   Expecting ':' delimiter: line 1 column 11 (char 10)
  to do:   remove {where}: the run is then made from its start
Not tried: M1/mcqa
"""
    assert workspace.zephyr("eval", "M1", "mcqa", "-r", "small.yaml") == (2, expected)
    shutil.rmtree(interrupted_run)
    assert workspace.zephyr("eval", "M1", "mcqa", "-r", "small.yaml") == (0, "")
