"""What a run shows while it trains."""

import io

import pytest
from rich.console import Console

from peftbench.config.compose import compose
from peftbench.config.schema import resolve
from peftbench.runs import observers


@pytest.mark.parametrize("width", [80, 60])
def test_the_bar_keeps_count_and_time_left_on_a_narrow_terminal(monkeypatch, width):
    screen = Console(width=width, force_terminal=True, file=io.StringIO())
    monkeypatch.setattr(observers, "console", screen)
    terminal = observers.Terminal(resolve(compose(["trainer.epochs=12"])), ["accuracy", "f1"], 2)
    row = {"epoch": 10, "loss": 0.5521, "step": 1234, "steps": 1440, "examples_per_second": 182.4}
    with terminal:
        terminal.on_steps(row)
        paper = Console(width=width, file=io.StringIO())
        paper.print(terminal._progress.get_renderable())
    shown = paper.file.getvalue()
    assert "epoch 10/12" in shown and "1234/1440" in shown and "-:--:--" in shown and "examples/s" in shown
    assert shown.count("\n") == 1
