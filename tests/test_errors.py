"""The one error, and what its text looks like."""

from zephyr.errors import ZephyrError, unknown_name_error


def test_parts_stand_in_order_and_empty_ones_are_left_out() -> None:
    error = ZephyrError("no such thing", where="a.yaml:3", found=0, allowed=["b", "c"], todo="stop")
    assert str(error).splitlines() == [
        "no such thing",
        "  where:   a.yaml:3",
        "  found:   0",
        "  allowed: b, c",
        "  to do:   stop",
    ]


def test_the_nearest_name_is_offered() -> None:
    assert "nearest: hellaswag" in str(
        unknown_name_error("task", "helaswag", ["gsm8k", "hellaswag"])
    )
    assert "nearest" not in str(unknown_name_error("task", "qqq", ["gsm8k"]))
