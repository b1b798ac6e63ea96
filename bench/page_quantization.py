"""The section on quantization of docs/benchmarks.md."""

from typing import Any

from bench.figures import spread
from bench.tables import cell, table

TEXT = """\
# Benchmarks of quantization

Models of the shapes of Qwen1.5-0.5B (stored in bfloat16) and BLOOM-560M (in float16), their weights
random, quantized by the stage that a recipe runs, and then measured by the task `footprint`:
`python -m bench.quantization`. Measured on {date} at commit {commit}: {processor}, {cores} cores,
{threads} threads.

Making a model is reading the whole one in float32, quantizing it, comparing it with the whole one
on up to 2,048 held-out tokens, and writing it; GPTQ is calibrated on 32 rows of 512 tokens. Its
peak is by how much the process grew, beside what reading the whole model in float32 takes. Files
are all that a model needs; expected are the footprints that shapes alone give: a byte or a half
for a weight of the linear layers, with a scale for each group, 2 bytes for all others. Speeds are
those of one prompt of 256 tokens and 32 tokens after it, the median of five readings with the
least and the most in brackets. Where the dtype is bfloat16, that is what was computed in;
bitsandbytes' 4-bit layers are kept on the path that dequantizes, in float32.
"""

SHAPES = {"qwen1.5-0.5b-shape-24-layers": "Qwen1.5-0.5B", "bloom-560m-shape": "BLOOM-560M"}
LINEAR = {"Qwen1.5-0.5B": 308_281_344, "BLOOM-560M": 301_989_888}
ALL = {"Qwen1.5-0.5B": 463_987_712, "BLOOM-560M": 559_214_592}
EMBEDDING = {"Qwen1.5-0.5B": 151_936 * 1024, "BLOOM-560M": 250_880 * 1024}
BITS = {
    "whole": 16,
    "int8": 8 + 32 / 1024,
    "nf4": 4 + 8 / 64 + 32 / (64 * 256),
    "nf4, scales not quantized": 4 + 32 / 64,
    "int4, groups of 128": 4 + 20 / 128,
    "int4, groups of 32": 4 + 20 / 32,
    "gptq": 4 + 20 / 128,
    "gptq, embeddings int8": 4 + 20 / 128,
}
"""Bits of a weight of a linear layer, its share of scales and zero points included."""


def expected(shape: str, method: str) -> float:
    """Bytes that a shape has in a form: its linear layers, and 2 bytes for all other numbers."""
    others = 2 * (ALL[shape] - LINEAR[shape])
    if method.endswith("embeddings int8"):
        others -= EMBEDDING[shape] * (2 - 1 - 3 / 1024)
    return others + LINEAR[shape] * BITS[method] / 8


def section(result: dict[str, Any]) -> str:
    rows = result["rows"]
    about = result["machine"]
    parts = [
        TEXT.format(
            date=result["date"],
            commit=result["commit"],
            processor=about["processor"],
            cores=about["cores"],
            threads=rows[0]["threads"],
        )
    ]
    for key, shape in SHAPES.items():
        of_shape = [row for row in rows if row["shape"] == key]
        if of_shape:
            whole = of_shape[0]["whole"]["peak_bytes"]
            parts += [f"## {shape}\n", table(HEAD, [_line(shape, row, whole) for row in of_shape])]
    return "\n".join(parts)


HEAD = [
    "method",
    "made in, s",
    "peak, GiB",
    "of reading the whole",
    "files, MB",
    "expected, MB",
    "in memory, MB",
    "prompt, tokens/s",
    "answer, tokens/s",
    "dtype",
]


def _line(shape: str, row: dict[str, Any], whole: float) -> list[str]:
    made = row.get("made")
    peak = made["peak_bytes"] if made else whole
    return [
        row["method"],
        f"{made['seconds']:.0f}" if made else "–",
        f"{peak / 2**30:.2f}",
        f"{peak / whole:.2f}",
        f"{row['disk'] / 1e6:,.0f}",
        f"{expected(shape, row['method']) / 1e6:,.0f}",
        f"{row['memory'] / 1e6:,.0f}",
        cell(spread(row["prompt"])),
        cell(spread(row["decode"])),
        row["dtype"],
    ]
