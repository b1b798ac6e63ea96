"""Virtual environments of the baselines, one each in .bench/, made once.

python -m bench.shared.environments [--device cpu|cuda]

On a CPU LLaMA-Factory goes without torchvision, and torchaudio is an empty package: it imports the
one and needs neither for text.
"""

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".bench"
"""Where models, rows and virtual environments are kept between benchmarks."""
TORCH = "torch==2.13.0"
TRANSFORMERS = ("transformers==5.24.0", "accelerate==1.15.0")
PACKAGES = {
    "trl": ("trl==1.16.0", "peft==0.21.2", *TRANSFORMERS),
    "lm_eval": ("lm-eval==0.4.13", *TRANSFORMERS),
    "transformers": ("transformers[serving]==5.24.0", "accelerate==1.15.0"),
    "llamafactory": ("llamafactory==0.9.5",),
}
ON_CUDA = {"trl": ("liger-kernel",), "llamafactory": ("liger-kernel",)}
LEFT_OUT = ("torchvision", "torchaudio")
REQUIREMENTS = "import importlib.metadata as m; print('\\n'.join(m.requires('llamafactory')))"
SITE_PACKAGES = "import site; print(site.getsitepackages()[0])"


def interpreter(name: str) -> Path:
    """Python of a baseline's environment; this one's for all else."""
    return CACHE / name / "bin" / "python" if name in PACKAGES else Path(sys.executable)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    device = parser.parse_args().device
    for name in PACKAGES:
        complete = CACHE / name / f"made-for-{device}"
        if not complete.exists():
            _create(name, device)
            complete.touch()


def _create(name: str, device: str) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(CACHE / name)], check=True)
    install = ("-m", "pip", "install", "-q")
    _python(name, *install, TORCH)
    if device == "cuda":
        _python(name, *install, TORCH, *PACKAGES[name], *ON_CUDA.get(name, ()))
    elif name != "llamafactory":
        _python(name, *install, TORCH, *PACKAGES[name])
    else:
        _python(name, *install, "--no-deps", *PACKAGES[name])
        needed = _python(name, "-c", REQUIREMENTS).splitlines()
        needed = [each for each in needed if not each.startswith(LEFT_OUT) and ";" not in each]
        _python(name, *install, *needed)
        stub = Path(_python(name, "-c", SITE_PACKAGES), "torchaudio")
        stub.mkdir(exist_ok=True)
        (stub / "__init__.py").touch()


def _python(name: str, *arguments: str) -> str:
    command = [str(interpreter(name)), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


if __name__ == "__main__":
    main()
