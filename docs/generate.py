"""Writes the reference pages and the design page's tree from the code; --check says what is stale.

python docs/generate.py [--check]
"""

import ast
import inspect
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer.main
from pydantic.fields import FieldInfo

from zephyr.cli.app import app
from zephyr.data.table import SOURCES, RegisteredSource
from zephyr.evaluate import harness
from zephyr.evaluate.interface import Metric
from zephyr.evaluate.tasks import TASKS
from zephyr.recipe.data import MixtureSpec, SourceSpec
from zephyr.recipe.evaluation import LM_EVAL, Evaluate, Published, TaskSpec
from zephyr.recipe.machine import RunSettings
from zephyr.recipe.models import ModelSpec
from zephyr.recipe.part import RecipePart
from zephyr.recipe.quantization import Quantize
from zephyr.recipe.schema import Recipe
from zephyr.recipe.training import Align, Lora, Pretrain, Shape, Tune
from zephyr.records import RECORD_KINDS

HERE = Path(__file__).parent
NOTE = "<!-- Made by docs/generate.py from the code; don't edit. -->\n\n"
SOURCE = HERE.parent / "src" / "zephyr"
TREE_START = "<!-- tree, made by docs/generate.py from the first line of each file -->"
TREE_END = "<!-- end of tree -->"


def cli() -> str:
    """Every command with its arguments and options."""
    return "# Command line\n\n" + _commands("zephyr", typer.main.get_command(app))


def _commands(path: str, group: Any) -> str:
    parts = []
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            parts.append(_commands(f"{path} {name}", command))
            continue
        parts.append(f"## {path} {name}\n\n{inspect.cleandoc(command.help)}\n\n")
        rows = [
            (
                " ".join(p.opts) if p.param_type_name == "option" else p.name.upper(),
                getattr(p, "help", None) or "",
                _default(p),
            )
            for p in command.params
        ]
        parts.append(_table(("argument or option", "what it is", "default"), rows))
    return "".join(parts)


def _default(parameter: Any) -> str:
    value = parameter.default
    return f"`{value}`" if isinstance(value, str | int | float) and value is not False else ""


def tasks() -> str:
    """Every task with its protocol and its metrics."""
    parts = ["# Tasks\n\n", *_TASKS]
    for task in TASKS.values():
        asked = ", ".join(f"{source} ({split})" for source, split in task.sources)
        parts.append(
            f"## {task.name}@{task.version}\n\n{inspect.cleandoc(task.evaluate.__doc__ or '')}\n\n"
            f"Asks {task.record_kind} records of {asked or 'the hold-out of a mixture'}.\n\n"
        )
        rows = [
            (m.name, m.protocol_label, m.kind, m.better or "neither", _rank(m))
            for m in task.metrics
        ]
        parts.append(_table(("metric", "rule", "statistic", "better", "rank"), rows))
    parts.append(f"## {LM_EVAL}NAME\n\n{inspect.cleandoc(harness.__doc__ or '')}\n\n")
    described = inspect.cleandoc(harness.evaluate_lm_eval_task.__doc__ or "")
    parts.append(f"{described.partition('Raises:')[0].strip()}\n")
    return "".join(parts)


_TASKS = (
    "Every score in a table names its protocol: what is listed here.\n\n",
    "A task has one **primary** metric. Verdicts on these are corrected together (Holm), over all ",
    "models of a table or a comparison. Others of a task are secondary: most are other views of ",
    "the same answers, and corrected together they would cost each other their verdicts. A ",
    "secondary verdict is by its own p-value and has a hollow mark (△ ▽); where nothing differs, ",
    "one in twenty is wrong. If no model has a value in the primary metric (answers without a ",
    "number), the first headline metric that has one takes its place. Of a task of ",
    "lm-evaluation-harness the first metric is primary. What chance scores stands beside the ",
    "score that it belongs to. [intervals.md](intervals.md) says how verdicts are made.\n\n",
)


def _rank(metric: Metric) -> str:
    if metric.chance_of:
        return f"beside {', '.join(metric.chance_of)}"
    return "primary" if metric.primary else "secondary" if metric.better else ""


_SOURCES = (
    "What can be named under `sources:` in a recipe. Columns are those that the reader needs, and ",
    "in brackets others that it looks at. Mixtures take the split in **bold**, tasks ask the one ",
    "in *italics*. Where a revision is unpinned, its files may change. The last column names what ",
    "is recalled or inferred, and was not read at the source.\n\n",
)


_ROWS = """## How rows are read

- **Columns beside a conversation or a pair.** `system` (or `system_prompt`) is the system
  message, `history` (pairs of texts, or messages) what was said before. A row with a `weight`
  of 0, or that `kto_tag` or the `label` of a `prompt` and `completion` marks as wrong, is left
  out; one with `tools`, `functions`, `images`, `videos` or `audios` can't be read, and is
  counted. A column is hidden by giving it another name: `columns: {unused: tools}`. All columns
  (and keys of turns) that were not used are listed by `zephyr data build` and in the data card,
  with the number of rows that have a value there; columns of a Parquet file that nobody reads
  are named without a number.
- **Turns.** Roles: system or developer; user, human or prompter; assistant, gpt, bot or model.
  Content is text, or a list of parts of text, which are joined as they stand; a picture or
  another part makes the row unreadable. A blank system turn means none. User and assistant take
  turns, from a first user to a last assistant: turns of tools, two turns of one role in a row,
  a greeting before the first question and empty turns are not mended, for what is between two
  turns is not known, and a greeting would be learned as an answer to nothing; such rows are
  counted. A last question without an answer in `conversations` is left out, and counted; the
  turns before it are read.
- **Flags of turns** (`weight`, `train`, `training`, `trainable`, `loss`). All answers of a
  conversation are learned and nothing else is: a row whose flags say otherwise can't be read.
- **Whole conversations as `chosen` and `rejected`.** Both must be the same up to their last
  answers; that is the prompt. With a `prompt` beside them (as in UltraFeedback), both begin
  with it.
- **Cells.** Null and NaN are nothing, and so is a cell of a CSV or TSV (and Alpaca's `input` in
  any file) that holds the word nan, NaN or `<NA>` alone. A whole number is its digits (25.0 is
  25); in CSV, 25.0 is a text, and stays. Truth values and infinite numbers are no text.
- **Registered sources** are read by their own columns, below, and no others.

Rows that can't be read are counted by reason, each with its first place; where they are more
than the mixture's `unreadable`, it is refused. `zephyr data show MIXTURE --left-out` lists
every row that was read and left out, with its place and reason.

"""


def sources() -> str:
    """Every registered source, by kind."""
    parts = ["# Sources\n\n", *_SOURCES, _ROWS]
    head = ("name", "on the hub", "revision", "columns", "splits and rows", "licence", "uncertain")
    for kind in RECORD_KINDS:
        rows = [_source(source) for source in SOURCES.values() if source.kind == kind]
        parts.append(f"## {kind}\n\n{_table(head, rows)}")
    return "".join(parts)


def _source(source: RegisteredSource) -> tuple[str, ...]:
    """A row of the table of sources."""
    place = revision = ""
    if (hub := source.hub) is not None:
        place = f"[{hub.id}]({hub.card_url}) {hub.config or ''}"
        revision = f"`{hub.revision}`" if hub.is_pinned else f"`{hub.revision}`, unpinned"
    columns = ", ".join(source.columns)
    if source.optional_columns:
        columns += f" ({', '.join(source.optional_columns)})"
    mark = {source.train_split: "**", source.eval_split: "*"}
    rows = [
        f"{mark.get(split, '')}{split}{mark.get(split, '')} "
        + ("(not known)" if count is None else f"{count:,}")
        for split, count in source.splits.items()
    ]
    licence = source.licence + ("; gated" if source.gated else "")
    doubts = [f"{fact} {doubt}" for fact, doubt in source.uncertain.items()]
    return (source.name, place, revision, columns, ", ".join(rows), licence, ", ".join(doubts))


_HOW = (
    "A recipe is a YAML file. `${NAME}` in a text stands for the variable of the environment, and ",
    "`--set models.M1.tune.lr=1e-4` changes a value for one run. Unknown keys are refused.\n\n",
)


def recipes() -> str:
    """Every key of a recipe."""
    parts = ["# Recipes\n\n", *_HOW]
    for part in (
        Recipe,
        MixtureSpec,
        SourceSpec,
        ModelSpec,
        Pretrain,
        Shape,
        Tune,
        Align,
        Lora,
        Quantize,
        Evaluate,
        TaskSpec,
        Published,
        RunSettings,
    ):
        parts.append(f"## {_title(part.__name__)}\n\n{inspect.cleandoc(part.__doc__ or '')}\n\n")
        schema = part.model_json_schema(by_alias=True)["properties"]
        rows = [
            (f"`{field.alias or name}`", _type(schema[field.alias or name]), _value(field))
            for name, field in part.model_fields.items()
        ]
        parts.append(_table(("key", "value", "default"), rows))
    return "".join(parts)


def _title(name: str) -> str:
    """The heading of a part of a recipe, by the name of its class."""
    return name.removesuffix("Spec")


def _type(schema: dict[str, Any]) -> str:
    """What a key may hold, in words."""
    if "anyOf" in schema:
        return " or ".join(_type(s) for s in schema["anyOf"] if s != {"type": "null"})
    if "$ref" in schema:
        return _title(schema["$ref"].rsplit("/", 1)[-1])
    if "enum" in schema or "const" in schema:
        values = schema.get("enum") or [schema["const"]]
        return " or ".join(f"`{value}`" for value in values)
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}"
    if schema["type"] == "object":
        named = schema.get("additionalProperties") or next(
            iter(schema["patternProperties"].values())
        )
        return f"{_type(named)} by name"
    words = {"string": "text", "integer": "whole number", "boolean": "yes or no"}
    signs = {
        "exclusiveMinimum": ">",
        "minimum": ">=",
        "exclusiveMaximum": "<",
        "maximum": "<=",
    }
    limits = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema]
    return f"{words.get(schema['type'], schema['type'])} {', '.join(limits)}".strip()


def _value(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if isinstance(field.default, RecipePart):
        return f"see {_title(type(field.default).__name__)}"
    return "none" if field.default is None else f"`{field.default}`"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    def line(cells: tuple[str, ...]) -> str:
        escaped = (" ".join(cell.split()).replace("|", "\\|") for cell in cells)
        return f"| {' | '.join(escaped)} |\n"

    if not rows:
        return ""
    return line(head) + "|" + " --- |" * len(head) + "\n" + "".join(map(line, rows)) + "\n"


_MODELS = (
    "Each row is a family of networks that was sent through the whole line as a tiny network with ",
    "random weights, with every type of layer that the family has (`tests/families`). Log-",
    "probabilities and generated tokens are compared with transformers' own, packed weights with ",
    "what was packed, merged weights with what transformers reads, and GGUF with llama.cpp's own ",
    "log-probabilities (`tests/export`). A family that is not in the table is tried when it is ",
    "loaded: its log-probabilities are compared with its own logits, and it is refused by name ",
    "where they differ. What was not tried: large models, and machines other than a CPU.\n\n",
    "- **layout**: `tree` computes the prompt of several completions once; with *prefixes shared* ",
    "also what many prompts begin with. `rows` is slower, and as right.\n",
    "- **serve**: *yes*: models with adapters share one batch; *one model at a time* where they ",
    "can't.\n",
    "- **GGUF**: for Ollama and llama.cpp. *no*: use vLLM or transformers with merged weights.\n\n",
)
_STEPS = {
    "layout": "load",
    "rank": "rank",
    "generate": "generate",
    "tune, align": "tune, align",
    "int8": "int8",
    "nf4": "nf4",
    "gptq": "gptq",
    "serve": "serve",
    "merged, PEFT": "export",
    "GGUF": "gguf",
}
"""Columns of the table of families, and the steps in `tests/families/matrix.json`."""


def models() -> str:
    """The families of networks, and what was tried of each."""
    matrix = HERE.parent / "tests" / "families" / "matrix.json"
    rows = json.loads(matrix.read_text(encoding="utf-8"))
    table = [
        (
            row["models"],
            f"`{row['model type']}`",
            *(row.get(step, "").replace(_NO_GGUF, "no") for step in _STEPS.values()),
        )
        for row in rows.values()
    ]
    return "# Models\n\n" + "".join(_MODELS) + _table(("models", "type", *_STEPS), table)


_NO_GGUF = "refused: this architecture can't be written as GGUF here"


def design() -> str:
    """The design page with its tree: the first line of every file of the package.

    Raises:
        FileNotFoundError: the page names a file that is not there.
    """
    page = (HERE / "design.md").read_text(encoding="utf-8")
    for path in re.findall(r"`((?:\w+/)+\w+\.(?:py|js))`", page):
        if not (SOURCE / path).exists():
            raise FileNotFoundError(f"docs/design.md names {path}")
    head, _, rest = page.partition(TREE_START)
    return f"{head}{TREE_START}\n\n{_tree()}\n{TREE_END}{rest.partition(TREE_END)[2]}"


def _tree() -> str:
    lines = []
    for folder in sorted({path.parent for path in SOURCE.rglob("*.py")} | {SOURCE / "tutor/page"}):
        name = folder.relative_to(SOURCE).as_posix()
        files = [
            path
            for path in sorted(folder.iterdir())
            if path.suffix in (".py", ".js") and (folder == SOURCE or path.stem != "__init__")
        ]
        about = f"**{name}/** {_first_line(folder / '__init__.py')}".rstrip()
        lines += ["" if lines else None, "**zephyr/**" if name == "." else about, ""]
        lines += [f"- `{file.name}` {line}" for file in files if (line := _first_line(file))]
    return "\n".join(line for line in lines if line is not None) + "\n"


def _first_line(file: Path) -> str:
    """The first line of a file's docstring, or of its first comment in JavaScript."""
    if not file.exists():
        return ""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".js":
        start = re.match(r"/\*\*\s*(?:\* )?(.*?)(?: \*/)?$", text, re.MULTILINE)
        return start[1].strip() if start else ""
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": lambda: NOTE + cli(),
    "design.md": design,
    "models.md": lambda: NOTE + models(),
    "recipes.md": lambda: NOTE + recipes(),
    "sources.md": lambda: NOTE + sources(),
    "tasks.md": lambda: NOTE + tasks(),
}


def main() -> int:
    """The number of stale pages with --check, else 0 after writing them all."""
    check = sys.argv[1:] == ["--check"]
    stale = 0
    for name, make in PAGES.items():
        path, text = HERE / name, make().rstrip() + "\n"
        if not check:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            print(f"docs/{name} is stale: make docs")
            stale += 1
    return stale


if __name__ == "__main__":
    sys.exit(main())
