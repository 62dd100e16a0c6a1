"""The progress bar: on request, in notebooks by default, and without effect on the callbacks."""

import pytest
import torch
from torch import nn

from extremal import explain, explain_channels
from extremal.explanations import progress_bar


class Toy(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x[..., :8, :8].mean((1, 2, 3)), torch.zeros(len(x))], 1)


X = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_is_shown_on_request(capfd: pytest.CaptureFixture[str]) -> None:
    steps, masks = [], []
    result = explain(
        Toy(), X, 0, areas=(0.1,), progress=True, on_step=steps.append, on_evidence=lambda *done: masks.append(done)
    )
    shown = capfd.readouterr()
    assert "search, start" in shown.err
    assert "evidence" in shown.err
    assert shown.out == ""
    assert steps[-1].index + 1 == steps[-1].total
    assert masks[-1][0] == masks[-1][1]
    assert result == explain(Toy(), X, 0, areas=(0.1,))


def test_is_not_shown_elsewhere(capfd: pytest.CaptureFixture[str]) -> None:
    explain(Toy(), X, 0, areas=(0.1,))
    assert capfd.readouterr() == ("", "")


def test_is_shown_in_a_notebook_unless_it_is_switched_off(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_bar, "in_notebook", lambda: True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # no widgets
    explain(Toy(), X, 0, areas=(0.1,), progress=False)
    assert capfd.readouterr() == ("", "")
    explain(Toy(), X, 0, areas=(0.1,))
    assert "search, start" in capfd.readouterr().out


def test_is_closed_after_an_exception(capfd: pytest.CaptureFixture[str]) -> None:
    def stop(step: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explain(Toy(), X, 0, areas=(0.1,), progress=True, on_step=stop)
    assert capfd.readouterr().err.endswith("\r")  # the line is cleared


def test_of_channels(capfd: pytest.CaptureFixture[str]) -> None:
    toy = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    explain_channels(toy, X, "1", 0, counts=(1, 2), progress=True)
    shown = capfd.readouterr().err
    assert "search" in shown
    assert "evidence" in shown
