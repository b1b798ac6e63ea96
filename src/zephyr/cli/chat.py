"""`zephyr chat`: an interactive chat with a model in the terminal."""

from rich.console import Console

from zephyr.errors import ZephyrError
from zephyr.records import Message
from zephyr.runs.store import Run, Store

TOKEN_BUDGET = 2048


def run_chat(
    run: Run, store: Store, console: Console, *, temperature: float, max_new_tokens: int
) -> None:
    """Chat loop: reads questions and streams the answers, until an empty line."""
    from zephyr.model.decoding import SamplingParams
    from zephyr.model.load import Lineage, load_model, silence_libraries

    silence_libraries()
    lineage = Lineage.read(run.artifact)
    model = load_model(lineage, store.root, token_budget=TOKEN_BUDGET, form="inference")
    console.print("Ask something. An empty line ends, /new starts afresh.", style="dim")
    messages: list[Message] = []
    seed = 0
    while True:
        try:
            question = console.input("[bold]> [/]").strip()
        except EOFError:
            return
        if not question:
            return
        if question == "/new":
            messages = []
            continue
        messages.append(Message("user", question))
        try:
            answer = model.stream(
                model.template.encode_prompt(messages),
                max_new_tokens=max_new_tokens,
                sampling=SamplingParams(temperature=temperature),
                seed=seed,
                on_text=lambda text: console.print(text, end="", markup=False, highlight=False),
            )
        except ZephyrError as error:
            messages.pop()
            console.print(f"{error}\n  (/new forgets the conversation so far)", markup=False)
            continue
        seed += 1
        console.print("" if answer.is_complete else " [dim](cut)[/]")
        messages.append(Message("assistant", answer.text))
