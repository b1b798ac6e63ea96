"""One place chooses the device. Where a machine lacks one, torch's answers are replaced."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from zephyr.cli import doctor
from zephyr.distributed.rendezvous import Rendezvous
from zephyr.errors import ZephyrError
from zephyr.evaluate.footprint import FootprintBenchmark
from zephyr.model import fp16_linear, logprobs, precision
from zephyr.model.load import Lineage
from zephyr.system import devices

GIB = 1 << 30


@pytest.fixture
def use_accelerator(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets torch say that it has an accelerator of a type (None: that it has none)."""

    def use(kind: str | None) -> list[Any]:
        calls: list[Any] = []
        found = None if kind is None else SimpleNamespace(type=kind)
        accelerator = torch.accelerator
        monkeypatch.setattr(accelerator, "current_accelerator", lambda check_available=False: found)
        monkeypatch.setattr(accelerator, "device_count", lambda: 2)
        monkeypatch.setattr(accelerator, "synchronize", lambda: calls.append("synchronize"))
        monkeypatch.setattr(accelerator, "set_device_index", calls.append)
        monkeypatch.setattr(accelerator, "get_memory_info", lambda device: (3 * GIB, 4 * GIB))
        monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 9 * GIB)
        monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 2 * GIB)
        for module in (torch.cuda, torch.xpu):
            monkeypatch.setattr(module, "get_device_name", lambda: "Card 9")
            monkeypatch.setattr(module, "is_bf16_supported", lambda including_emulation: True)
        return calls

    return use


@pytest.mark.parametrize(
    ("found", "expected", "unused"),
    [
        ("cuda", "cuda", None),
        ("xpu", "xpu", None),
        ("mps", "mps", None),
        ("npu", "cpu", "npu"),
        (None, "cpu", None),
    ],
)
def test_the_choice_is_torchs_where_it_is_known(
    use_accelerator: Any, found: str | None, expected: str, unused: str | None
) -> None:
    calls = use_accelerator(found)
    assert devices.device_type() == expected
    assert devices.has_accelerator() is (expected != "cpu")
    assert devices.unused_accelerator() == unused
    devices.synchronize()
    devices.set_local_device(1)
    assert calls == (["synchronize", 1] if expected != "cpu" else [])


def test_the_processor_can_be_asked_for(
    use_accelerator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_accelerator("mps")
    monkeypatch.setenv("ZEPHYR_DEVICE", "cpu")
    assert (devices.device_type(), devices.unused_accelerator()) == ("cpu", "mps")
    monkeypatch.setenv("ZEPHYR_DEVICE", "mps")
    assert (devices.device_type(), devices.unused_accelerator()) == ("mps", None)
    monkeypatch.setenv("ZEPHYR_DEVICE", "cuda")
    with pytest.raises(ZephyrError, match=r"found:   cuda\n  allowed: mps, cpu"):
        devices.device_type()


def test_each_type_has_its_sizes() -> None:
    assert logprobs.LOGITS_PER_CHUNK.keys() == devices.DEVICE_KINDS.keys()
    assert all(
        kind.logits_per_chunk > 0 and kind.useful_tokens > 0
        for kind in devices.DEVICE_KINDS.values()
    )


@pytest.mark.parametrize("kind", ["cuda", "xpu", "mps"])
def test_memory_and_precision_are_the_devices(
    use_accelerator: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An Apple GPU has what it may take of the main memory, but no more than is free there."""
    use_accelerator(kind)
    device: Any = SimpleNamespace(type=kind)
    monkeypatch.setattr(devices, "free_memory", lambda: 8 * GIB)
    assert devices.free_device_memory(device) == (7 if kind == "mps" else 3) * GIB
    monkeypatch.setattr(devices, "free_memory", lambda: GIB)
    assert devices.free_device_memory(device) == (1 if kind == "mps" else 3) * GIB
    assert devices.free_device_memory(torch.device("cpu")) == GIB
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda *version: True)
    assert devices.has_native_bfloat16()
    monkeypatch.setattr(precision, "stored_dtype", lambda folder: torch.bfloat16)
    folder: Any = None
    assert precision.choose_evaluation_dtype("auto", folder) == "bfloat16"
    assert fp16_linear.fp16_kernel_dtype(folder) is None


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("cuda", "Card 9"),
        ("xpu", "xpu, Card 9 (chosen, but no release has been run on one: ZEPHYR_DEVICE=cpu"),
        ("mps", "mps, Apple GPU of "),
        ("npu", "; npu is there and is not used"),
        (None, f"cpu ({torch.backends.cpu.get_cpu_capability()})"),
    ],
)
def test_doctor_says_what_is_chosen_and_what_was_never_run(
    use_accelerator: Any, kind: str | None, expected: str
) -> None:
    use_accelerator(kind)
    check = doctor._check_device()
    assert expected in check.found
    assert ("no release has been run" in check.found) is (kind in ("xpu", "mps"))


def test_a_footprint_names_its_device(use_accelerator: Any, tmp_path: Any) -> None:
    benchmark = FootprintBenchmark(Lineage("base"), tmp_path, "float32")
    labels = {}
    for kind in (None, "cuda", "mps"):
        use_accelerator(kind)
        labels[kind] = benchmark.device_and_dtype[0]
    threads = torch.get_num_threads()
    assert labels == {
        None: f"{threads} threads of a processor",
        "cuda": "one GPU",
        "mps": "one Apple GPU",
    }


def test_processes_cannot_share_a_training_on_an_apple_gpu(use_accelerator: Any) -> None:
    use_accelerator("mps")
    rendezvous = Rendezvous.__new__(Rendezvous)
    with (
        pytest.raises(ZephyrError, match=r"2 processes on mps\n  to do:   --processes 1"),
        rendezvous.process_group(2, is_sharded=False),
    ):
        pass


def test_random_numbers_go_on_as_before() -> None:
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    with devices.fork_rng(torch.device("cpu")):
        torch.rand(7)
    assert torch.equal(torch.rand(2), expected)


def test_double_precision_is_the_cpus_where_a_device_has_none() -> None:
    assert devices.to_float64(torch.ones(2)).dtype == torch.float64

    class MpsTensor:
        device = SimpleNamespace(type="mps")

        def cpu(self) -> torch.Tensor:
            return torch.ones(2)

    tensor: Any = MpsTensor()
    assert devices.to_float64(tensor).dtype == torch.float64
