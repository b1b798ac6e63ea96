"""Checkpoints: whole or not at all, damaged ones named, and the one before them used."""

import errno
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from zephyr.errors import ZephyrError
from zephyr.train import checkpoint

LOGGED_BYTES = 100


class Training(NamedTuple):
    """Two weights and their optimizer, some steps on."""

    weights: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer

    def step(self, number: int) -> None:
        for name, weight in self.weights.items():
            torch.manual_seed(number)
            weight.grad = torch.randn_like(weight) * len(name)
        self.optimizer.step()

    def save(self, folder: Path, step: int) -> None:
        checkpoint.save(
            folder,
            step,
            dict(self.weights),
            self.optimizer,
            metrics_bytes=10 * step,
            window={"loss": step / 3},
        )

    def resume(self, folder: Path, logged: int = LOGGED_BYTES) -> checkpoint.ResumeState:
        return checkpoint.resume(folder, dict(self.weights), self.optimizer, logged)

    def moments(self) -> list[Tensor]:
        state = self.optimizer.state_dict()["state"]
        return [state[number][name] for number in sorted(state) for name in sorted(state[number])]


def make_training(shape: tuple[int, ...] = (3, 2)) -> Training:
    weights = {"a": nn.Parameter(torch.ones(shape)), "bb": nn.Parameter(torch.zeros(4))}
    return Training(weights, torch.optim.AdamW(weights.values(), lr=0.1, fused=True))


def train_and_save(folder: Path, steps: int = 3) -> Training:
    """A training of so many steps, with a checkpoint after each."""
    training = make_training()
    for step in range(1, steps + 1):
        training.step(step)
        training.save(folder, step)
    return training


def is_equal(one: Training, other: Training) -> bool:
    pairs = zip(
        [*one.weights.values(), *one.moments()],
        [*other.weights.values(), *other.moments()],
        strict=True,
    )
    return all(torch.equal(a, b) for a, b in pairs)


def file_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_two_are_kept_and_read_back_to_the_bit(tmp_path: Path) -> None:
    original = train_and_save(tmp_path)
    assert file_names(tmp_path) == ["step-00000002", "step-00000003"]
    again = make_training()
    assert again.resume(tmp_path) == checkpoint.ResumeState(3, 30, {"loss": 1.0}, ())
    assert is_equal(original, again)
    for training in (original, again):
        training.step(4)
    assert is_equal(original, again)


def flip_byte(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def replace_tensor(name: str, tensor: Tensor) -> Callable[[Path], None]:
    """Puts another tensor into the weights, and updates the checksums."""

    def change(path: Path) -> None:
        tensors = load_file(path / "weights.safetensors")
        tensors[name] = tensor
        save_file(tensors, path / "weights.safetensors")
        state = json.loads((path / "state.json").read_text())
        del state["sum"]
        data = (path / "weights.safetensors").read_bytes()
        state["sha256"]["weights.safetensors"] = hashlib.sha256(data).hexdigest()
        text = json.dumps(state, sort_keys=True)
        state["sum"] = hashlib.sha256(text.encode()).hexdigest()
        (path / "state.json").write_text(json.dumps(state))

    return change


def empty_folder(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def truncate_file(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def change_step(path: Path) -> None:
    state = path / "state.json"
    state.write_text(state.read_text().replace('"step": 3', '"step": 2'))


CORRUPTIONS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "weights cut short": (
        lambda path: truncate_file(path / "weights.safetensors", -5),
        "the checksum of weights.safetensors differs",
    ),
    "a byte of the moments flipped": (
        lambda path: flip_byte(path / "optimizer.safetensors"),
        "the checksum of optimizer.safetensors differs",
    ),
    "no moments": (
        lambda path: (path / "optimizer.safetensors").unlink(),
        "No such file or directory",
    ),
    "no state": (lambda path: (path / "state.json").unlink(), "No such file or directory"),
    "state of zero bytes": (lambda path: truncate_file(path / "state.json", 0), "Expecting value"),
    "state cut short": (lambda path: truncate_file(path / "state.json", 30), "(char 30)"),
    "state of no text": (lambda path: (path / "state.json").write_bytes(b"\xff"), "utf-8"),
    "state of another kind": (
        lambda path: (path / "state.json").write_text("[]"),
        "the checksum of state.json differs",
    ),
    "another step in the state": (change_step, "the checksum of state.json differs"),
    "an empty folder": (empty_folder, "No such file or directory"),
    "a weight more": (replace_tensor("c", torch.ones(2)), "another model, which differs in c"),
    "another shape": (replace_tensor("a", torch.ones(2, 3)), "another model, which differs in a"),
    "another type": (
        replace_tensor("bb", torch.zeros(4).half()),
        "another model, which differs in bb",
    ),
}


@pytest.mark.parametrize("case", CORRUPTIONS)
def test_a_damaged_one_is_named_and_the_one_before_is_used(tmp_path: Path, case: str) -> None:
    change, message = CORRUPTIONS[case]
    training = train_and_save(tmp_path)
    change(tmp_path / "step-00000003")
    again = make_training()
    resumed = again.resume(tmp_path)
    assert resumed[:3] == (2, 20, {"loss": 2 / 3})
    [rejected] = resumed.rejected
    assert rejected.startswith("step-00000003: ")
    assert message in rejected
    again.step(3)
    assert is_equal(training, again)
    again.save(tmp_path, 3)
    assert file_names(tmp_path) == ["step-00000002", "step-00000003"]
    assert make_training().resume(tmp_path)[0] == 3


def test_where_all_are_damaged_nothing_is_taken_of_any(tmp_path: Path) -> None:
    train_and_save(tmp_path)
    for path in tmp_path.iterdir():
        flip_byte(path / "optimizer.safetensors")
    again = make_training()
    resumed = again.resume(tmp_path)
    assert resumed[:3] == (0, 0, {})
    assert [text.split(":")[0] for text in resumed.rejected] == ["step-00000003", "step-00000002"]
    assert is_equal(again, make_training())


def test_one_that_counts_on_more_than_was_logged_is_passed_over(tmp_path: Path) -> None:
    train_and_save(tmp_path)
    resumed = make_training().resume(tmp_path, logged=29)
    assert resumed.step == 2
    assert "metrics.jsonl is shorter" in resumed.rejected[0]


def test_a_damaged_one_takes_no_place_of_a_good_one(tmp_path: Path) -> None:
    train_and_save(tmp_path)
    flip_byte(tmp_path / "step-00000003" / "state.json")
    again = make_training()
    again.resume(tmp_path)
    again.step(3)
    again.step(4)
    again.save(tmp_path, 4)
    assert file_names(tmp_path) == ["step-00000002", "step-00000004"]


def test_stopped_twice_at_one_step_it_is_not_written_again(tmp_path: Path) -> None:
    """Nothing is removed before there is something in its place."""
    training = train_and_save(tmp_path)
    before = (tmp_path / "step-00000003").stat().st_ino
    training.save(tmp_path, 3)
    assert (tmp_path / "step-00000003").stat().st_ino == before


@pytest.mark.parametrize("file", [*checkpoint.TENSOR_FILES, "state.json"])
def test_a_full_disk_loses_none_of_the_older_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    training = train_and_save(tmp_path)

    def raise_disk_full(path: Path, *_: Any) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    original_save_file = save_file

    def save(tensors: dict[str, Tensor], path: Path) -> None:
        original_save_file(tensors, path)
        if path.name == file:
            raise_disk_full(path)

    monkeypatch.setattr(checkpoint, "save_file", save)
    if file == "state.json":
        monkeypatch.setattr(checkpoint, "write_json", raise_disk_full)
    training.step(4)
    with pytest.raises(ZephyrError, match="the disk is full"):
        training.save(tmp_path, 4)
    assert file_names(tmp_path) == ["step-00000002", "step-00000003"]
    monkeypatch.undo()
    again = make_training()
    assert again.resume(tmp_path).step == 3
    again.step(4)
    assert is_equal(training, again)


@pytest.mark.parametrize("after", range(4))
def test_killed_while_one_is_written_the_older_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Ends without a chance to clear up, once a file was written, or just before the last name."""
    training = train_and_save(tmp_path)
    synced: list[Path] = []

    class Killed(BaseException):
        pass

    def sync(path: Path) -> None:
        synced.append(path)
        if len(synced) > after:
            raise Killed

    monkeypatch.setattr(checkpoint, "fsync_path", sync)
    monkeypatch.setattr(checkpoint.shutil, "rmtree", lambda *_, **__: None)
    training.step(4)
    if after < 3:
        with pytest.raises(Killed):
            training.save(tmp_path, 4)
    monkeypatch.undo()
    again = make_training()
    step = again.resume(tmp_path).step
    assert step == (4 if (tmp_path / "step-00000004").exists() else 3)
    again.save(tmp_path, step)
    if step == 3:
        again.step(4)
        again.save(tmp_path, 4)
    assert is_equal(training, again)
    assert file_names(tmp_path)[-1] == "step-00000004"
