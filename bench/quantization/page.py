"""Tables on quantization of docs/benchmarks.md, of results/bench/quantization-*.json."""

from typing import Any

from bench.shared.tables import cell, table

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


def quantization_tables(result: dict[str, Any]) -> dict[str, Any]:
    """What the template needs of the results of one device."""
    tables = {}
    for key, shape in SHAPES.items():
        if rows := [row for row in result["rows"] if row["shape"] == key]:
            whole = rows[0]["whole"]["peak_bytes"]
            tables[shape] = table(HEAD, (_cells(shape, row, whole) for row in rows))
    return {"tables": tables}


def _cells(shape: str, row: dict[str, Any], whole: float) -> list[str]:
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
        cell(row["prompt"]),
        cell(row["decode"]),
        row["dtype"],
    ]
