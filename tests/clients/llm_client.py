"""llm: an answer, a stream, and a conversation that goes on, by its command line."""

import os
import subprocess
import sys
from pathlib import Path

folder = Path(os.environ["LLM_USER_PATH"])
folder.mkdir(parents=True, exist_ok=True)
(folder / "extra-openai-models.yaml").write_text(
    f"- {{model_id: m1, model_name: M1, api_base: '{os.environ['BASE_URL']}'}}\n"
)


def llm(*arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "llm"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode != 0) == (code != 0), done.stdout + done.stderr
    return done.stdout + done.stderr


options = ("-m", "m1", "-o", "max_tokens", "8", "-o", "temperature", "0", "--key", "none")
whole = llm("What is force? (3)", *options, "--no-stream")
assert whole.strip()
assert llm("What is force? (3)", *options) == whole
assert llm("And what is mass?", "--continue", "--key", "none").strip()
assert "maximum context length" in llm("7" * 7000, *options, code=1)
