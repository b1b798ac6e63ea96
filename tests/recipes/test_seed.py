"""The recipes of the seed: its rows and curves, and as many steps as its figures show."""

from typing import Any

import pytest

from zephyr.data.mixture import holdout_size
from zephyr.data.table import SOURCES
from zephyr.evaluate.tasks import get_task, resolve_sources
from zephyr.recipe.data import MixtureSpec
from zephyr.recipe.load import find_recipe, read_recipe
from zephyr.recipe.schema import Recipe
from zephyr.recipe.training import Align, Lora, Tune
from zephyr.runs.graph import ContentResolver, Node, build_graph, reference_model
from zephyr.train.loop import count_steps, learning_rate

ROWS_OF_UNKNOWN_SIZE = 1_000
"""The seed took 1,000 rows of each source whose size is not known."""

TASKS = ["hellaswag", "gsm8k", "preferences", "mcqa", "wikitext2"]
QWEN, BLOOM = "Qwen/Qwen1.5-0.5B-Chat", "bigscience/bloom-560m"


def load_recipe(name: str) -> Recipe:
    return read_recipe(find_recipe(name))


def recipe_graph(recipe: Recipe) -> dict[str, Node]:
    """The graph, with stand-ins for what lies on the hub."""
    resolver = ContentResolver(
        version=lambda kind: get_task(kind.removeprefix("task:")).version if ":" in kind else 1,
        source=lambda source, use, where: {"name": source.name, "use": use},
        base=lambda name, where: {"files": name},
        task_sources=resolve_sources,
        task_record_kind=lambda task: get_task(task.name).record_kind,
    )
    return build_graph(recipe, resolver)


def training_spec(recipe: Recipe, model: str) -> Tune | Align:
    found = recipe.models[model]
    spec = found.tune or found.align
    assert spec is not None
    return spec


def mixture_size(mixture: MixtureSpec) -> int:
    """How many a mixture has before anything is left out, by the published sizes."""
    total = 0
    for source in mixture.sources:
        known = SOURCES[str(source.name)]
        rows = known.splits[str(known.train_split)] or ROWS_OF_UNKNOWN_SIZE
        total += min(rows, source.cap or mixture.cap or rows)
    return total


def num_training_examples(recipe: Recipe, model: str) -> int:
    mixture = recipe.data[training_spec(recipe, model).data]
    count = mixture_size(mixture)
    return count - holdout_size(count, mixture.holdout)


@pytest.mark.parametrize(
    ("name", "model", "per_epoch", "steps"),
    [
        ("paper", "Qwen-S-cosine", 6_058, 12_116),
        ("paper", "Qwen-S-constant", 6_058, 12_116),
        ("paper", "BLOOM-S-cosine", 6_058, 12_116),
        ("paper", "BLOOM-S-constant", 6_058, 12_116),
        ("paper", "Qwen-L-cosine", 19_497.375, 38_995),
        ("paper", "Qwen-L-constant", 19_497.375, 38_995),
        ("paper", "BLOOM-L-cosine", 4_811.125, 9_623),
        ("paper", "BLOOM-L-constant", 4_811.125, 9_623),
        ("paper", "Qwen-DPO", 742.1875, 2_227),
        ("paper", "Qwen-S-cosine-DPO", 742.1875, 2_227),
        ("qwen", "M1", 6_058, 12_116),
        ("qwen", "M2", 742.1875, 2_227),
        ("qwen", "M0-DPO", 742.1875, 2_227),
        ("bloom", "M1", 6_058, 12_116),
        ("bloom", "M2", 742.1875, 2_227),
        ("bloom", "M0-DPO", 742.1875, 2_227),
    ],
)
def test_steps_are_those_of_the_seeds_figures(
    name: str, model: str, per_epoch: float, steps: int
) -> None:
    """Read off its axes: 6,058, 19,497.4, 4,811.13 and 742.3 steps an epoch.

    The last step is a partial one where the examples do not come out even; the seed's tool leaves
    it out (9,622 for 9,622.25, and 2,226 for 2,226.6).
    """
    seed_recipe = load_recipe(name)
    spec, examples = training_spec(seed_recipe, model), num_training_examples(seed_recipe, model)
    assert examples / spec.batch == per_epoch
    assert count_steps(spec, examples) == steps


@pytest.mark.parametrize("name", ["paper", "qwen", "bloom"])
def test_settings_are_the_seeds(name: str) -> None:
    seed_recipe = load_recipe(name)
    for model, found in seed_recipe.models.items():
        spec = found.tune or found.align
        if spec is None:
            continue
        constant = model.endswith("constant")
        assert spec.lora == Lora(rank=8, alpha=16, targets="attention-inputs")
        assert (spec.batch, spec.lr, spec.max_length) == (16, 5e-5, 2048)
        assert spec.schedule == ("constant" if constant else "cosine")
        assert (spec.clip, spec.weight_decay, spec.beta2) == (1.0, 0.0, 0.999)
        if isinstance(spec, Align):
            assert (spec.epochs, spec.warmup, spec.beta) == (3, 200, 0.1)
        else:
            assert (spec.epochs, spec.evaluate_every) == (2, 1000)
            assert spec.warmup == (0 if constant else 1000)
        assert learning_rate(spec, 9, 12_116) == pytest.approx(
            5e-5 if constant else 5e-5 * 10 / spec.warmup
        )
    assert {task.key for task in seed_recipe.evaluate.tasks} == set(TASKS)
    assert all(m.holdout == 0.05 for m in seed_recipe.data.values() if m.cap)


def test_the_papers_recipe_has_every_row_of_the_table() -> None:
    """Both bases, both fine-tuning sets, and DPO of Qwen as it came and as it was fine-tuned."""
    seed_recipe = load_recipe("paper")
    graph = recipe_graph(seed_recipe)
    assert {m.base for m in seed_recipe.models.values() if m.base} == {QWEN, BLOOM}
    tuned_models: dict[tuple[Any, ...], str] = {}
    for name, model in seed_recipe.models.items():
        if model.tune:
            tuned_models[model.from_, model.tune.data, model.tune.schedule] = name
    both = ("cosine", "constant")
    assert set(tuned_models) == {
        *(("Qwen", data, schedule) for data in ("D_S", "D_L") for schedule in both),
        *(("BLOOM", data, schedule) for data in ("D_S", "D_L-20k") for schedule in both),
    }
    aligned = {m.from_ for m in seed_recipe.models.values() if m.align}
    assert aligned == {"Qwen", tuned_models["Qwen", "D_S", "cosine"]}
    assert {f"{m}/{t}" for m in seed_recipe.models for t in TASKS} <= graph.keys()
    assert len({node.fingerprint for node in graph.values()}) == len(graph)
    assert {mixture_size(m) for m in seed_recipe.data.values()} == {
        102_030,
        328_377,
        81_030,
        12_500,
        103_212,
    }


@pytest.mark.parametrize(("name", "base"), [("qwen", QWEN), ("bloom", BLOOM)])
def test_the_recipe_of_one_model_has_its_whole_line(name: str, base: str) -> None:
    seed_recipe = load_recipe(name)
    graph = recipe_graph(seed_recipe)
    derivations = {
        n: (m.from_, m.quantize and m.quantize.method) for n, m in seed_recipe.models.items()
    }
    assert derivations == {
        "M0": (None, None),
        "M1": ("M0", None),
        "M2": ("M1", None),
        "M0-DPO": ("M0", None),
        "M1-int8": ("M1", "int8"),
        "M1-nf4": ("M1", "nf4"),
    }
    assert seed_recipe.models["M0"].base == base
    assert {f"{m}/{t}" for m in seed_recipe.models for t in TASKS} <= graph.keys()
    assert graph["M2/preferences"].inputs["reference"] == "M1/preferences"
    assert reference_model(seed_recipe.models, "M1-nf4") == "M0"
    other = recipe_graph(load_recipe("bloom" if name == "qwen" else "qwen"))
    shared = {n for n in graph if graph[n].fingerprint == other[n].fingerprint}
    assert shared == {"data.sft", "data.pairs"}


TABLE_1 = """
Qwen              44.98 28.43 46.91 17.02 25.17 -
BLOOM             36.84  7.12 20.55  4.30  6.58 -
Qwen-L-cosine     42.15 30.64 50.43 20.20 29.01 -
Qwen-S-cosine     45.33 34.50 52.15 20.91 30.21 0.57
BLOOM-L-cosine    36.00  5.40 23.03  4.88  7.33 -
BLOOM-S-cosine    36.13  6.04 31.04  7.42  8.46 -
Qwen-S-cosine-DPO 45.01 19.40 42.26 13.06 19.38 0.52
Qwen-DPO          45.40 22.91 45.14 15.55 22.50 0.50
"""
COLUMNS = (
    "hellaswag.acc_norm",
    "gsm8k.bleu4",
    "gsm8k.rouge1",
    "gsm8k.rouge2",
    "gsm8k.rougeL",
    "preferences.reward_accuracy_strict",
)


def test_the_published_figures_are_those_of_table_1() -> None:
    expected = {}
    for name, *values in map(str.split, TABLE_1.strip().splitlines()):
        figures = [float(v) for v in values if v != "-"]
        figures[5:] = [round(100 * v) for v in figures[5:]]
        expected[name] = dict(zip(COLUMNS, figures, strict=False))
    paper, qwen, bloom = (published_scores(name) for name in ("paper", "qwen", "bloom"))
    assert paper == expected
    same = {"M0": "Qwen", "M1": "Qwen-S-cosine", "M2": "Qwen-S-cosine-DPO", "M0-DPO": "Qwen-DPO"}
    assert qwen == {ours: expected[theirs] for ours, theirs in same.items()}
    assert bloom == {"M0": expected["BLOOM"], "M1": expected["BLOOM-S-cosine"]}


def published_scores(name: str) -> dict[str, dict[str, float]]:
    found = read_recipe(find_recipe(name)).published
    assert found is not None
    return found.scores


def test_a_recipe_that_is_changed_shows_no_published_figures() -> None:
    path = find_recipe("qwen")
    assert read_recipe(path, ["models.M1.tune.lr=1e-4"]).published is None
    assert read_recipe(path, ["run.jobs=2"]).published is not None
