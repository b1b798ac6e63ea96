"""The commands, as people type them."""

import html
import io
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from tests import tiny
from tests.conftest import ROOT
from tests.workspace import NODE_STATE, Command, Workspace, wait_for
from zephyr.cli import app as cli
from zephyr.cli import doctor
from zephyr.report import figures
from zephyr.report.plotting import Drawing
from zephyr.report.results import Results
from zephyr.runs.store import read_json_lines, write_json_lines

COMMANDS = [
    *(
        "new",
        "run",
        "plan",
        "why",
        "report",
        "compare",
        "serve",
        "chat",
        "export",
        "list",
        "doctor",
    ),
]
COMMANDS += ["data", "eval", "preferences"]


@pytest.fixture
def workspace(
    finished_workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Workspace:
    """A copy of the finished workspace, to be changed, as the current folder."""
    copy = finished_workspace.copy(tmp_path / "copy")
    monkeypatch.chdir(copy.folder)
    monkeypatch.setenv("ZEPHYR_RUNS", str(copy.runs))
    return copy


def node_states(zephyr: Command, *arguments: str) -> dict[str, str]:
    """The state of each node, as `plan` shows it."""
    code, out, err = zephyr("plan", "tiny.yaml", *arguments)
    assert (code, err) == (0, "")
    return dict(NODE_STATE.findall(out))


# -- help -----------------------------------------------------------------------------------------


def test_help_lists_the_commands_and_imports_nothing_heavy() -> None:
    code = """
import sys
from zephyr.cli.app import main
sys.argv = ["zephyr", "--help"]
try:
    main()
finally:
    print(*(m for m in ("torch", "transformers", "pyarrow", "pydantic") if m in sys.modules))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *lines, heavy = found.stdout.split("\n")[:-1]
    assert heavy == ""
    named = [match[1] for line in lines if (match := re.match(r"│ (\w+)  +[A-Z]", line))]
    assert named == COMMANDS


def test_every_command_explains_itself() -> None:
    app = typer.main.get_command(cli.app)
    assert list(app.commands) == COMMANDS  # type: ignore[attr-defined]  # it is a group
    for command in app.commands.values():  # type: ignore[attr-defined]
        assert command.help
        assert all(p.help for p in command.params if p.param_type_name == "argument")


def documented_commands() -> list[tuple[str, str]]:
    """Every line of the README and the recipes that starts zephyr: (file, what follows)."""
    pattern = re.compile(r"(?:^|`|\$ |&& )zephyr ([a-z][^`\n#|&]*)", re.MULTILINE)
    files = [ROOT / "README.md", *(ROOT / "recipes").glob("*.yaml")]
    return [(f.name, found[1]) for f in files for found in pattern.finditer(f.read_text())]


def test_every_command_in_the_readme_can_be_typed() -> None:
    app = typer.main.get_command(cli.app)
    documented = documented_commands()
    assert ("real-small.yaml", "run real-small") in documented
    for _, line in documented:
        name, *arguments = shlex.split(re.sub(r"  .*|[\[\]]", "", line).replace("FORM", "trl"))
        command = app.commands[name]  # type: ignore[attr-defined]  # it is a group
        if name == "data":
            name, *arguments = arguments
            command = command.commands[name]
        command.make_context(name, arguments)
    assert {line.split()[0] for file, line in documented if file == "README.md"} == set(COMMANDS)


# -- plan, why, list ------------------------------------------------------------------------------


def test_a_plan_goes_from_missing_to_fresh_to_stale(
    workspace: Workspace, zephyr: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = set(workspace.nodes_by_name())
    monkeypatch.setenv("ZEPHYR_RUNS", str(tmp_path / "none"))
    assert node_states(zephyr) == dict.fromkeys(nodes, "missing")
    monkeypatch.setenv("ZEPHYR_RUNS", str(workspace.runs))
    assert node_states(zephyr) == dict.fromkeys(nodes, "fresh")
    changed = node_states(zephyr, "--set", "models.M1.tune.lr=1e-3")
    after = {n for n in nodes if n.startswith(("M1", "M2"))}
    assert {n for n, state in changed.items() if state == "stale"} == after
    assert {n for n, state in changed.items() if state == "fresh"} == nodes - after
    quiz = workspace.folder / "quiz.jsonl"
    quiz.write_text(quiz.read_text() + "\n")
    changed = node_states(zephyr)
    stale = {n for n in nodes if n.endswith("/mcqa") or n.startswith("data.")}
    assert {n for n, state in changed.items() if state == "stale"} == stale
    assert {n for n, state in changed.items() if state == "waiting"} == nodes - stale
    assert {p.name for p in (tmp_path).iterdir()} == {"copy"}


def test_a_mixture_rebuilt_as_it_was_keeps_what_was_trained_on_it(
    workspace: Workspace, zephyr: Command
) -> None:
    """Another quiz is looked for in the data; they stay as they are, and so do the models."""
    quiz = workspace.folder / "quiz.jsonl"
    quiz.write_text(quiz.read_text() + "\n")
    before = workspace.fingerprints()
    _, out, _ = zephyr("plan", "tiny.yaml")
    assert "waiting: kept if the mixtures above draw the same records as before" in out
    code, _, err = zephyr("chat", "M1", "-r", "tiny.yaml")
    assert (code, err.splitlines()[0]) == (2, "Error: the data of M1 have changed")
    code, out, _ = zephyr("run", "tiny.yaml")
    assert code == 0
    assert (
        out.splitlines()[0] == "tiny: 0 nodes kept, 23 to make (16 of them only if the data change)"
    )
    after = workspace.fingerprints()
    assert {n for n in before if before[n] != after[n]} == {
        n for n in before if n.endswith("/mcqa") or n.startswith("data.")
    }
    assert set(node_states(zephyr).values()) == {"fresh"}


def test_a_plan_counts_what_is_to_be_made(workspace: Workspace, zephyr: Command) -> None:
    _, out, _ = zephyr("plan", "tiny.yaml", "-s", "models.M2.align.beta=0.2")
    assert out.splitlines()[-1] == f"5 of 23 nodes to make in {workspace.runs}"


def test_a_plan_tells_unfinished_from_failed(workspace: Workspace, zephyr: Command) -> None:
    run = workspace.run_folder("M2")
    part = run.with_suffix(".part")
    run.rename(part)
    assert node_states(zephyr)["M2"] == "unfinished"
    (part / "FAILED").write_text("no memory")
    assert node_states(zephyr)["M2"] == "failed"


def test_why_names_what_changed(workspace: Workspace, zephyr: Command) -> None:
    change = ("-r", "tiny.yaml", "-s", "models.M1.tune.lr=1e-3")
    code, out, err = zephyr("why", "M2/mcqa", *change)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "M2/mcqa is stale",
        "  model: M2 changed (from: M1 changed (lr: 0.01 -> 0.001))",
    ]
    _, out, _ = zephyr("why", "M0", *change)
    assert out.splitlines()[:2] == [
        "M0 is fresh",
        "  nothing that goes into it has changed since the recipe was last run",
    ]
    made_with = "made with: threads [12], processes 1, layout tree, dtype float32, .*4096 tokens in"
    assert re.search(made_with, out)
    quiz = workspace.folder / "quiz.jsonl"
    quiz.write_text(quiz.read_text() + "\n")
    _, out, _ = zephyr("why", "M0/mcqa", "-r", "tiny.yaml")
    assert out.splitlines()[0] == "M0/mcqa is stale"
    assert out.splitlines()[1].startswith("  content: [{'sha256': '")


def test_why_shows_the_preflight_checks_or_that_they_were_skipped(
    workspace: Workspace, zephyr: Command
) -> None:
    """What was skipped changes no fingerprint: it is kept as it is afterwards."""
    _, out, _ = zephyr("why", "M2", "-r", "tiny.yaml")
    figures = r"packing error \S+, adapter off error 0, start loss error \S+, matrices 28, seconds"
    assert re.search(f" proofs: examples 24, sampled 8, {figures}", " ".join(out.split()))
    change = ("-r", "tiny.yaml", "-s", "models.M2.align.steps=1")
    assert zephyr("eval", "M2", "mcqa", *change, "--no-proofs").code == 0
    _, out, _ = zephyr("why", "M2", *change)
    assert out.splitlines()[0] == "M2 is fresh"
    assert out.splitlines()[-1] == "  proofs: skipped by --no-proofs"


def test_list_shows_every_node_with_its_size(
    workspace: Workspace, zephyr: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = zephyr("list")
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines()[1:]]
    assert [row[1] for row in rows] == list(workspace.nodes_by_name())
    assert {(row[0], row[3]) for row in rows} == {("tiny", "finished")}
    done = json.loads((workspace.run_folder("M0") / "DONE").read_text())
    [size] = [row[4] for row in rows if row[1] == "M0"]
    assert size == f"{sum(done['bytes'].values()) / 1e6:.1f}"
    monkeypatch.setenv("ZEPHYR_RUNS", str(tmp_path / "none"))
    assert zephyr("list").out == f"Nothing has been run in {tmp_path / 'none'} yet: zephyr run\n"


# -- report ---------------------------------------------------------------------------------------


def test_a_watched_report_is_written_again_when_a_run_changes(workspace: Workspace) -> None:
    page = workspace.runs / "tiny" / "report.html"
    page.unlink()
    process = workspace.start_command("report", "tiny.yaml", "--watch", "--every", "1")
    wait_for(page.exists, process)
    assert "damaged" not in page.read_text()
    (workspace.run_folder("M1/mcqa") / "DONE").unlink()
    wait_for(lambda: "damaged: DONE is missing" in page.read_text(), process)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    assert "Watching its runs; Ctrl-C ends." in out


def test_a_damaged_run_is_shown_by_list_and_report(workspace: Workspace, zephyr: Command) -> None:
    """Also a mixture's, on whose records the plan depends; the next run makes both again."""
    runs = [workspace.run_folder("data.chat"), workspace.run_folder("M1")]
    for run, name in zip(runs, ("artifact/manifest.json", "env.json"), strict=True):
        (run / name).write_text("{")
    code, out, err = zephyr("list")
    assert (code, err) == (0, "")
    states = {row.split()[1]: row.split()[3] for row in out.splitlines()[1:]}
    assert {n for n, state in states.items() if state == "damaged"} == {"data.chat", "M1"}
    assert zephyr("report", "tiny.yaml").code == 0
    page = (workspace.runs / "tiny" / "report.html").read_text()
    for name in ("artifact/manifest.json", "env.json"):
        assert re.search(rf"damaged: {name} has 1 of [\d,]+ bytes; run it again", page)
    code, out, _ = zephyr("plan", "tiny.yaml")
    assert {row.split()[0] for row in out.splitlines() if " damaged " in row} == {"data.chat", "M1"}
    code, out, _ = zephyr("run", "tiny.yaml")
    assert (code, out.count("] done ")) == (0, 2)
    assert "done data.chat" in out
    assert "done M1 " in out
    assert "damaged:" not in (workspace.runs / "tiny" / "report.html").read_text()


def test_a_run_that_goes_while_it_is_read_is_reported(
    workspace: Workspace, zephyr: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remove_a_run(results: Results) -> list[Drawing]:
        shutil.rmtree(workspace.run_folder("M1/gsm8k"))
        return []

    monkeypatch.setattr(figures, "draw_figures", remove_a_run)
    code, _, err = zephyr("report", "tiny.yaml")
    assert (code, err.splitlines()[0]) == (
        2,
        "Error: a run has been moved or removed while it was read",
    )


def test_a_report_says_that_it_is_of_the_last_run(workspace: Workspace, zephyr: Command) -> None:
    code, out, err = zephyr("report", "tiny.yaml", "-s", "models.M2.align.beta=0.2")
    assert code == 0
    assert "Report: " in out
    assert err.startswith(
        "The report is of the last run; 5 of 23 nodes of this recipe are not in it (M2, M2/"
    )
    assert zephyr("report", "tiny.yaml").err == ""


def test_a_report_of_another_recipe_of_the_same_name_is_refused(
    workspace: Workspace, zephyr: Command
) -> None:
    other = workspace.folder / "other.yaml"
    other.write_text(re.sub(r"\bM(?=[012])", "N", workspace.recipe_path.read_text()))
    code, _, err = zephyr("report", "other.yaml")
    assert (code, err.splitlines()[0]) == (
        2,
        "Error: another recipe of the name tiny was run here",
    )
    assert "models M0, M1, M2, M1-nf4" in err


def test_a_copied_recipe_does_not_take_the_report_of_its_name(
    workspace: Workspace, zephyr: Command
) -> None:
    """It has to get another name; a folder that was moved or copied whole keeps its own."""
    nodes = workspace.runs / "tiny" / "nodes.json"
    before = nodes.read_text()
    other = workspace.folder / "other.yaml"
    other.write_text(workspace.recipe_path.read_text().replace("seed: 1\n", "seed: 2\n"))
    assert other.read_text() != workspace.recipe_path.read_text()
    code, _, err = zephyr("run", "other.yaml")
    assert (code, err.splitlines()[0]) == (
        2,
        "Error: another recipe of the name tiny has its report here",
    )
    assert "tiny.yaml, and now other.yaml" in err
    assert nodes.read_text() == before
    assert zephyr("report", "other.yaml").err == err
    assert command_in_report(workspace) == ["zephyr", "run", "tiny.yaml"]


def command_in_report(workspace: Workspace) -> list[str]:
    """The command that makes a recipe again, as a shell reads it from the report."""
    page = (workspace.runs / "tiny" / "report.html").read_text(encoding="utf-8")
    match = re.search(r"<pre>(zephyr run .*)</pre>", page)
    assert match is not None
    return shlex.split(html.unescape(match[1]))


def test_the_command_in_the_report_makes_the_same_again(
    workspace: Workspace, zephyr: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a file with a blank in its name, with a variable in it, that `--set` has changed."""
    monkeypatch.setenv("COURSE", "tiny")
    text = workspace.recipe_path.read_text()
    workspace.recipe_path.unlink()
    recipe = workspace.folder / "my course.yaml"
    recipe.write_text(re.sub(r"(?m)^name: tiny$", "name: ${COURSE}", text))
    assert recipe.read_text() != text
    change = "evaluate.models=[M0, M1]"
    code, _, err = zephyr("run", "my course.yaml", "-s", change)
    assert (code, err) == (0, "")
    program, *arguments = command_in_report(workspace)
    assert (program, arguments) == ("zephyr", ["run", "my course.yaml", "--set", change])
    code, out, _ = zephyr(*arguments)
    assert (code, "nodes kept, 0 to make" in out) == (0, True)


def test_plan_shows_how_long_a_stale_node_took_last(workspace: Workspace, zephyr: Command) -> None:
    def times(*arguments: str) -> dict[str, str]:
        _, out, _ = zephyr("plan", "tiny.yaml", *arguments)
        return dict(re.findall(r"(?m)^(\S+) .* [0-9a-f]{20}  +(\S.*?) *$", out))

    now, changed = times(), times("-s", "models.M2.align.beta=0.2")
    assert re.fullmatch(r"\d+ s", now["M2"])
    assert changed["M1"] == now["M1"]
    assert changed["M2"] == f"last {now['M2']}"


def test_plan_says_of_a_base_what_becomes_of_it(
    zephyr: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is made: whether it can be exported as GGUF, and its licence."""
    monkeypatch.chdir(tmp_path)
    tiny.qwen2().save_pretrained("base")
    tiny.tokenizer().save_pretrained("base")
    Path("base/README.md").write_text("---\nlicense: mit\n---\n")
    Path("r.yaml").write_text("name: r\ndata: {}\nmodels: {M0: {base: base}}\n")
    _, out, _ = zephyr("plan", "r.yaml")
    assert "M0: can be exported as GGUF, for Ollama and llama.cpp; mit\n" in out


# -- doctor ---------------------------------------------------------------------------------------


def test_doctor_finds_all_that_is_needed(
    zephyr: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZEPHYR_RUNS", str(tmp_path / "not" / "yet"))
    monkeypatch.setattr(doctor, "NEEDED_MEMORY", 1e6)
    monkeypatch.setattr(doctor, "NEEDED_DISK", 1e6)
    code, out, err = zephyr("doctor")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == ["ok"] * 10
    monkeypatch.setattr(doctor, "NEEDED_DISK", 1e18)
    code, out, _ = zephyr("doctor")
    assert code == 2
    assert re.search("^!! +free disk .*free some space, or set ZEPHYR_RUNS", out, re.MULTILINE)


# -- export ---------------------------------------------------------------------------------------


def test_an_exported_adapter_is_the_model_in_plain_peft(
    workspace: Workspace, zephyr: Command, tmp_path: Path
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from zephyr.model.load import Lineage, load_model

    out = tmp_path / "out"
    arguments = ("-r", "tiny.yaml", "--to", "peft", "--out", str(out))
    expected = f"  M2: joining its adapters\n{out}: an adapter for M0\n"
    assert zephyr("export", "M2", *arguments) == (0, expected, "")
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["r"], config["base_model_name_or_path"]) == (16, "M0")
    code, _, err = zephyr("export", "M1", *arguments)
    assert (code, err.splitlines()[0]) == (2, "Error: something is there already")
    assert zephyr("export", "M1", *arguments, "--force").code == 0
    assert json.loads((out / "adapter_config.json").read_text())["r"] == 8
    assert zephyr("export", "M2", *arguments, "--force").code == 0
    for name in ("M0", "M1-nf4"):
        code, _, err = zephyr("export", name, *arguments[:-1], str(tmp_path / name))
        assert code == 2
        assert err.splitlines() == [
            f"Error: {name} has no adapter: all its weights are its own",
            "  allowed: M1, M2",
        ]
        assert not (tmp_path / name).exists()

    base_folder = workspace.run_folder("M0") / "artifact" / "weights"
    peft_model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base_folder), out)
    ours = load_model(
        Lineage.read(workspace.run_folder("M2") / "artifact"), workspace.runs, token_budget=256
    )
    text = AutoTokenizer.from_pretrained(out)("What is force?", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(
            peft_model(text).logits, ours.causal(text).logits, atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("name", ["M2", "M1-nf4"])
def test_an_exported_model_answers_alike_in_plain_transformers(
    workspace: Workspace, zephyr: Command, tmp_path: Path, name: str
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from zephyr.model import bnb_quantization
    from zephyr.model.load import Lineage, load_model
    from zephyr.records import Message

    out = tmp_path / "out"
    arguments = ("-r", "tiny.yaml", "--to", "merged", "--out", str(out))
    found = zephyr("export", name, *arguments)
    assert (found.code, found.out.splitlines()[2]) == (0, f"{out}: a whole model for transformers")
    ours = load_model(
        Lineage.read(workspace.run_folder(name) / "artifact"), workspace.runs, token_budget=256
    )
    plain, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    bnb_quantization.disable_avx512_bf16_kernel(
        plain
    )  # bitsandbytes' faster kernel wants wider layers than these
    for question in ("What is force", "What is work and what is it for"):
        prompt = ours.template.encode_prompt([Message("user", question)])
        row = [{"role": "user", "content": question}]
        ids = tokenizer.apply_chat_template(row, add_generation_prompt=True, return_dict=False)
        assert ids == prompt.tolist()
        answer = plain.generate(torch.tensor([ids]), max_new_tokens=16, do_sample=False)
        [completion] = ours.generate([prompt], max_new_tokens=16)
        text = tokenizer.decode(answer[0, len(ids) :], skip_special_tokens=True)
        assert text.removeprefix(" ") == completion.text
        assert len(completion.text) > 4
    card = (out / "README.md").read_text()
    assert str(workspace.folder) not in card
    assert str(tmp_path) not in card


def test_an_exported_model_for_ollama_is_a_gguf_and_a_modelfile(
    workspace: Workspace, zephyr: Command, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ("-r", "tiny.yaml", "--to", "ollama", "--type", "q4_0", "--out", str(out))
    found = zephyr("export", "M2", *arguments)
    what = "a whole model for Ollama in q4_0: ollama create m2 -f Modelfile"
    assert (found.code, found.out.splitlines()[:4]) == (
        0,
        [
            "  M2: loading and merging the weights",
            "  M2: comparing prompts with the plain tokenizer's",
            "  M2: writing the weights in q4_0",
            f"{out}: {what}",
        ],
    )
    names = ["M2-q4_0.gguf", "Modelfile", "README.md", "zephyr-export.json"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert (out / "Modelfile").read_text().startswith("FROM ./M2-q4_0.gguf\n")
    wrong = ("--to", "merged", "--type", "f16", "--out", str(tmp_path / "no"))
    code, _, err = zephyr("export", "M2", "-r", "tiny.yaml", *wrong)
    assert (code, err.splitlines()[0]) == (
        2,
        "Error: --to merged has no --type: its weights are stored as they are trained",
    )
    arguments = ("-r", "tiny.yaml", "--to", "gguf", "--out", str(tmp_path / "none"))
    code, _, err = zephyr("export", "M1-nf4", *arguments)
    assert (code, err.splitlines()[0]) == (2, "Error: the weights of this model are quantized")
    assert [path.name for path in tmp_path.iterdir() if "none" in path.name] == []


# -- eval and chat --------------------------------------------------------------------------------


def test_eval_prints_value_interval_n_and_protocol(workspace: Workspace, zephyr: Command) -> None:
    code, out, err = zephyr("eval", "M1", "mcqa", "-r", "tiny.yaml")
    assert (code, err) == (0, "")
    scores = json.loads((workspace.run_folder("M1/mcqa") / "artifact/scores.json").read_text())
    lines = []
    for m in scores["metrics"]:
        value, low, high = (100 * m[key] for key in ("value", "low", "high"))
        lines.append(f"{m['name']} {value:.2f}  95 % [{low:.2f}, {high:.2f}]  n=8")
        lines.append(f"  {m['protocol']}")
    assert out.splitlines() == lines
    assert lines[1] == "  mcqa@1 · rank · acc_norm (characters) · 0-shot · quiz · n=8"


def test_eval_run_is_the_long_form(workspace: Workspace, zephyr: Command) -> None:
    short, long = (zephyr("eval", *word, "M1", "mcqa", "-r", "tiny.yaml") for word in ([], ["run"]))
    assert short == long


def test_eval_show_tells_what_was_asked_and_said(workspace: Workspace, zephyr: Command) -> None:
    items = read_json_lines(workspace.run_folder("M1/mcqa") / "artifact/items.jsonl")
    wrong = [item for item in items if item["scores"]["acc_norm"] < 1]
    code, out, err = zephyr("eval", "show", "M1", "mcqa", "-r", "tiny.yaml", "--wrong", "--json")
    assert (code, err) == (0, "")
    assert [json.loads(line) for line in out.splitlines()] == wrong[:10]
    assert 0 < len(wrong) < len(items)
    _, out, _ = zephyr("eval", "show", "M1", "mcqa", "-r", "tiny.yaml", "--right", "--limit", "1")
    first = next(item for item in items if item["scores"]["acc_norm"] == 1)
    assert out.startswith(first["id"])
    for line in (first["detail"]["request"], *first["detail"]["choices"]):
        assert line in out
    assert out.count("<- right") == 1
    assert out.endswith(f"1 of {len(items) - len(wrong)} right items, by acc_norm\n")


def test_eval_show_puts_the_worst_first_where_nothing_is_right_or_wrong(
    workspace: Workspace, zephyr: Command
) -> None:
    _, out, _ = zephyr("eval", "show", "M1", "wikitext2", "-r", "tiny.yaml", "--wrong", "--json")
    items = [json.loads(line) for line in out.splitlines()]
    each = [i["scores"]["perplexity"] / i["weight"]["perplexity"] for i in items]
    assert each == sorted(each, reverse=True)


def test_eval_show_lets_no_text_rule_the_terminal(
    workspace: Workspace, zephyr: Command, tmp_path: Path
) -> None:
    items_path = workspace.run_folder("M1/gsm8k") / "artifact/items.jsonl"
    before = items_path.read_text()
    items = read_json_lines(items_path)
    items[0]["detail"]["output"] = "[red]\x1b[31m\u202e[/nothing]"
    try:
        write_json_lines(items_path, items)
        _, out, _ = zephyr("eval", "show", "M1", "gsm8k", "-r", "tiny.yaml")
    finally:
        items_path.write_text(before)
    assert "[red]\ufffd[31m\ufffd[/nothing]" in out


def test_eval_show_says_what_is_wrong(workspace: Workspace, zephyr: Command) -> None:
    def error_of(*arguments: str) -> str:
        code, out, err = zephyr("eval", "show", *arguments, "-r", "tiny.yaml")
        assert (code, out) == (2, "")
        return err

    assert "unknown group 'mechanic'" in error_of("M1", "mcqa", "--group", "mechanic")
    assert "not wrong and right" in error_of("M1", "mcqa", "--wrong", "--right")
    assert "unknown evaluation 'M1/mcq'" in error_of("M1", "mcq")
    assert "has not been run yet" in error_of("M1", "mcqa", "--set", "seed=9")


def test_compare_pairs_what_two_models_were_asked_alike(
    workspace: Workspace, zephyr: Command
) -> None:
    code, out, err = zephyr("compare", "tiny/M0", "tiny/M1", "--json")
    assert (code, err) == (0, "")
    rows = {(r["task"], r["metric"]): r for r in map(json.loads, out.splitlines())}
    table = json.loads((workspace.runs / "tiny" / "table.json").read_text())
    (m1,) = [row for row in table["models"] if row["model"] == "M1"]
    for cell in m1["cells"]:
        row, difference = rows[cell["task"], cell["metric"]], cell["difference"]
        if difference["value"] is not None and not cell["metric"].startswith("reward_"):
            assert row["difference"]["value"] == difference["value"]
            assert row["difference"]["n"] == difference["n"]
    assert rows["preferences", "reward_accuracy"]["difference"] is None
    assert rows["preferences", "reward_accuracy"]["empty"].startswith("tiny/M0: a base model")
    code, out, _ = zephyr("compare", "tiny/M0", "tiny/M1")
    assert code == 0
    assert "cannot tell" in out


def test_compare_names_what_is_not_there(workspace: Workspace, zephyr: Command) -> None:
    for first, message in (
        ("M0", "RECIPE/MODEL"),
        ("tiny/M9", "unknown model 'M9'"),
        ("x/M0", "run"),
    ):
        code, _, err = zephyr("compare", first, "tiny/M1")
        assert code == 2
        assert message in err


def test_eval_says_why_a_metric_has_no_value(workspace: Workspace, zephyr: Command) -> None:
    _, out, _ = zephyr("eval", "M0", "preferences", "-r", "tiny.yaml")
    assert out.splitlines()[0] == (
        "reward_accuracy: a base model has no reference: its reward is zero for every answer"
    )


def test_chat_answers_from_standard_input(
    workspace: Workspace, zephyr: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same question gets the same answer; /new forgets, a blank line ends."""
    typed_lines = "What is force?\n/new\nWhat is force?\n\nnever read\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed_lines))
    code, out, err = zephyr("chat", "M1", "-r", "tiny.yaml", "--max-new-tokens", "8")
    assert (code, err) == (0, "")
    start, first, new, second, end = out.split("> ")
    assert start == "Ask something. An empty line ends, /new starts afresh.\n"
    assert new == end == ""
    assert first == second
    assert first.strip()
    assert sys.stdin.read() == "never read\n"


def test_chat_ends_where_the_input_does(
    workspace: Workspace, zephyr: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert zephyr("chat", "M0", "-r", "tiny.yaml").code == 0
