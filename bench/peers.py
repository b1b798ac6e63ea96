"""The peers' virtual environments, one each in .bench/, made once.

python bench/peers.py [--device cpu|cuda]

On a CPU LLaMA-Factory goes without torchvision, and torchaudio is an empty package: it imports the
one and needs neither for text.
"""

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".bench"
TORCH = "torch==2.13.0"
TRL = ("trl==1.16.0", "transformers==5.24.0", "peft==0.21.2", "accelerate==1.15.0")
LLAMAFACTORY = "llamafactory==0.9.5"
LM_EVAL = ("lm-eval==0.4.13", "transformers==5.24.0", "accelerate==1.15.0")
SERVING = ("transformers[serving]==5.24.0", "accelerate==1.15.0")
LEFT_OUT = ("torchvision", "torchaudio")
REQUIREMENTS = "import importlib.metadata as m; print('\\n'.join(m.requires('llamafactory')))"


def python_of(peer: str) -> Path:
    """The interpreter of a peer's environment."""
    return FOLDER / peer / "bin" / "python"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Plain)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    device = parser.parse_args().device
    _make("trl", device, TRL if device == "cpu" else (*TRL, "liger-kernel"))
    _make("lm_eval", device, LM_EVAL)
    _make("transformers", device, SERVING)
    if device == "cuda":
        _make("llamafactory", device, (LLAMAFACTORY, "liger-kernel"))
    elif _make("llamafactory", device, ("--no-deps", LLAMAFACTORY)):
        wanted = _run("llamafactory", "-c", REQUIREMENTS).splitlines()
        _pip("llamafactory", *(w for w in wanted if not w.startswith(LEFT_OUT) and ";" not in w))
        stub = Path(_run("llamafactory", "-c", "import site; print(site.getsitepackages()[0])"))
        (stub / "torchaudio").mkdir(exist_ok=True)
        (stub / "torchaudio" / "__init__.py").touch()
        _done("llamafactory", device)


def _make(peer: str, device: str, packages: tuple[str, ...]) -> bool:
    """Whether an environment was made; one that is whole already is left as it is."""
    if (FOLDER / peer / f"made-for-{device}").exists():
        return False
    subprocess.run([sys.executable, "-m", "venv", str(FOLDER / peer)], check=True)
    _pip(peer, TORCH)
    _pip(peer, TORCH, *packages)
    if "--no-deps" not in packages:
        _done(peer, device)
    return True


def _done(peer: str, device: str) -> None:
    (FOLDER / peer / f"made-for-{device}").touch()


def _pip(peer: str, *arguments: str) -> None:
    _run(peer, "-m", "pip", "install", "-q", *arguments)


def _run(peer: str, *arguments: str) -> str:
    done = subprocess.run(
        [str(python_of(peer)), *arguments], check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout.strip()


class _Plain(argparse.RawDescriptionHelpFormatter):
    """Shows the text above as it stands."""


if __name__ == "__main__":
    main()
