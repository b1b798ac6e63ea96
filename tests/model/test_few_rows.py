"""The other order of a product gives the same numbers, and is taken only where it is quicker."""

import pytest
import torch
from torch import nn

from tests import tiny
from zephyr.model import few_rows
from zephyr.model.decode import Row, Running
from zephyr.model.fork import ids


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 4, 5)])
def test_both_orders_give_the_same(bias: bool, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(5, 7, bias=bias)
    x = torch.randn(*shape)
    torch.testing.assert_close(few_rows.transposed(x, layer.weight, layer.bias), layer(x))


@pytest.mark.parametrize("quicker", [False, True])
def test_a_network_answers_the_same_in_either_order(
    quicker: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(few_rows, "_gains", lambda weights: quicker)

    def answers(hastened: bool) -> list[list[int]]:
        causal = tiny.model("qwen2").causal
        if hastened:
            assert few_rows.hasten(causal) is quicker
        rows = [Row(ids([3, 1, 4 + n])) for n in range(5)]
        running = Running(causal)
        running.add(rows)
        for _ in range(8):
            running.step()
        return [row.written for row in rows]

    assert answers(hastened=True) == answers(hastened=False)


def test_what_is_not_in_float32_is_left_as_it_is() -> None:
    causal = tiny.model("qwen2").causal.to(torch.bfloat16)
    assert not few_rows.hasten(causal)
