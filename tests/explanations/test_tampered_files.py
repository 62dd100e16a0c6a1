"""Files of explanations that were changed: refused in one sentence when they are read, or right in all their parts."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from extremal import ChannelExplanation, explain_channels
from extremal.explanations import explanation_file
from extremal.explanations.channels import explanation as channels
from extremal.explanations.explanation import Explanation
from extremal.explanations.stability import Stability
from extremal.tensor_files import read_tensors, write_tensors
from support.errors import message_of
from support.made_explanations import AREAS, explanation
from support.toys import Carriers

Head = dict[str, Any]
NAN = float("nan")


def stability() -> Stability:
    return Stability(
        areas=AREAS,
        ious=torch.ones(1, 2, 3),
        core=torch.ones(1, 2, 1, 2, 4, dtype=torch.bool),
        core_shares=torch.ones(1, 2),
        effects=torch.ones(1, 2, 3),
        unseen_effects=torch.full((1, 2, 3), NAN),
        smallest_areas=torch.full((1, 3), NAN),
        seed=0,
        evaluations=12,
    )


def whole() -> Explanation:
    """An explanation with all optional parts."""
    return explanation(
        alternatives=(explanation(),),
        stability=stability(),
        within=torch.ones(1, 2, 4, dtype=torch.bool),
        fields=torch.rand(1, 2, 1, 3, 3),
        left_out=(("blur",),),
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[type, Path]:
    folder = tmp_path_factory.mktemp("saved")
    whole().save(folder / "explanation.safetensors")
    torch.manual_seed(0)
    toy = Carriers([3], seed=1)
    explain_channels(toy, torch.rand(1, 3, 8, 8), "features", 0, counts=(3, 5)).save(folder / "channels.safetensors")
    return {Explanation: folder / "explanation.safetensors", ChannelExplanation: folder / "channels.safetensors"}


def refuse(kind: Any, path: Path, change: Callable[[dict[str, Tensor], Head], None]) -> str:
    """The message for a file after a change."""
    tensors, head = read_tensors(path, "a result")
    change(tensors, head)
    changed = path.with_name("changed.safetensors")
    write_tensors(changed, tensors, head)
    message = message_of(kind.load, changed)
    assert "\n" not in message
    assert f"must be a file written by its save, in the format of this version, got {str(changed)!r} (" in message
    assert message.endswith("); save it again")
    return message.partition(" (")[2].removesuffix("); save it again")


def test_every_tensor_has_a_rule() -> None:
    for kind, rules in (
        (Explanation, explanation_file.TENSOR_RULES),
        (Stability, explanation_file.STABILITY_RULES),
        (ChannelExplanation, channels._TENSOR_RULES),
    ):
        declared = {f.name for f in dataclasses.fields(kind) if f.type in (Tensor, Tensor | None, "Tensor")}
        assert declared == set(rules)


@pytest.mark.parametrize("kind", [Explanation, ChannelExplanation])
class TestTensors:
    def test_of_another_shape(self, saved: dict[type, Path], kind: type) -> None:
        path = saved[kind]
        for name, tensor in read_tensors(path, "a result")[0].items():
            for other in (tensor[None], tensor.flatten(), torch.cat([tensor, tensor]), tensor[:0]):
                is_volume = name == "inputs" and other.ndim > tensor.ndim and kind is ChannelExplanation
                if other.shape != tensor.shape and not is_volume:
                    refuse(kind, path, lambda tensors, _, name=name, other=other: tensors.update({name: other}))

    def test_of_another_type(self, saved: dict[type, Path], kind: type) -> None:
        path = saved[kind]
        for name, tensor in read_tensors(path, "a result")[0].items():
            if "trace" not in name:
                other = tensor.int() if tensor.dtype != torch.int32 else tensor.float()
                refuse(kind, path, lambda tensors, _, name=name, other=other: tensors.update({name: other}))

    def test_missing(self, saved: dict[type, Path], kind: type) -> None:
        optional = {"fields", "within", "units", "activity", "smallest_activity"}
        for name in read_tensors(saved[kind], "a result")[0]:
            if name not in optional:
                assert refuse(kind, saved[kind], lambda tensors, _, name=name: tensors.pop(name)).endswith("is missing")

    @pytest.mark.parametrize("value", [NAN, -0.1, 1.1, float("inf")])
    def test_masks_outside_of_0_to_1(self, saved: dict[type, Path], kind: type, value: float) -> None:
        def change(tensors: dict[str, Tensor], _: Head) -> None:
            tensors["masks"].view(-1)[3] = value

        assert refuse(kind, saved[kind], change) == "masks must lie in 0..1, got other values"

    def test_unknown(self, saved: dict[type, Path], kind: type) -> None:
        message = refuse(kind, saved[kind], lambda tensors, _: tensors.update(colour=torch.ones(1)))
        assert message == "it has an unknown field 'colour'"


@pytest.mark.parametrize("kind", [Explanation, ChannelExplanation])
class TestValues:
    @pytest.mark.parametrize("value", [None, [], {}, "", 3, -1, NAN, 1e400, [None], [[]], [["a"]], "x" * 1000, [NAN]])
    def test_of_other_types(self, saved: dict[type, Path], kind: type, value: Any) -> None:
        path = saved[kind]
        possible = {"left_out": [[], [[]], [["a"]]], "stability": [None], "alternatives": [[]], "target": [[None]]}
        possible |= {"units": [None], "settings": [{}], "share": [3], "axis": [3], "layer": ["", "x" * 1000]}
        for name in read_tensors(path, "a result")[1]:
            if value not in possible.get(name, []):
                refuse(kind, path, lambda _, head, name=name: head.update({name: value}))

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            *(("seed", value) for value in (None, -1, 2**32, 0.5, True, "0", 10**4000)),
            *(("spacing", value) for value in (None, 3, [0], [NAN], [1, 1, 1, 1], "111")),
            *(("evaluations", value) for value in (None, 3, {"solver": -1}, {"solver": "a"})),
            *(("solver", value) for value in (None, "path", [])),
            *(("network", value) for value in (None, 3, ["a"])),
            ("perturbation", {"a": 1}),
        ],
    )
    def test_of_settings(self, saved: dict[type, Path], kind: type, name: str, value: Any) -> None:
        assert f"{name} must be " in refuse(kind, saved[kind], lambda _, head: head["settings"].update({name: value}))

    @pytest.mark.parametrize("depth", [70, 900, 100_000])
    def test_deep_json(self, saved: dict[type, Path], kind: type, depth: int, tmp_path: Path) -> None:
        tensors, head = read_tensors(saved[kind], "a result")
        text = json.dumps({**head, "settings": 0}).replace('"settings": 0', f'"settings": {"[" * depth}{"]" * depth}')
        save_file(tensors, tmp_path / "a.safetensors", metadata={"extremal": text})
        assert "(ValueError); save it again" in message_of(kind.load, tmp_path / "a.safetensors")  # type: ignore[attr-defined]

    def test_lengths(self, saved: dict[type, Path], kind: type) -> None:
        for name in ("target", "target_names", "status"):
            refuse(kind, saved[kind], lambda _, head, name=name: head.update({name: head[name] * 2}))
        refuse(kind, saved[kind], lambda _, head: head.update(status=[head["status"][0] * 2]))
        refuse(kind, saved[kind], lambda _, head: head.update(status=[["excellent"] * 2]))


class TestParts:
    def test_a_region_for_all_inputs_of_an_older_file(self, tmp_path: Path) -> None:
        saved, path = whole(), tmp_path / "a.safetensors"
        saved.save(path)
        tensors, head = read_tensors(path, "a result")
        write_tensors(path, {**tensors, "within": tensors["within"][0]}, head)
        assert Explanation.load(path) == saved

    def test_areas(self, saved: dict[type, Path]) -> None:
        for areas in ([0.5, 0.25], [0.25, 0.25], [0.25, 1.0], [0.0, 0.5], [0.25], [0.1, 0.2, 0.3], [True, 0.5]):
            message = refuse(Explanation, saved[Explanation], lambda _, head, areas=areas: head.update(areas=areas))
            assert message.startswith(("areas must be rising numbers in (0, 1), got", "masks must have the shape"))

    def test_counts(self, saved: dict[type, Path]) -> None:
        for counts in ([5, 3], [3, 3], [0, 3], [3, 10_000], [3], [3.0, 5.0]):
            refuse(
                ChannelExplanation, saved[ChannelExplanation], lambda _, head, counts=counts: head.update(counts=counts)
            )

    def test_alternatives_of_other_inputs(self, saved: dict[type, Path]) -> None:
        def change(tensors: dict[str, Tensor], _: Head) -> None:
            for name in [name for name in tensors if name.startswith("0.")]:
                tensors[name] = torch.cat([tensors[name]] * 2)

        assert "masks must have the shape (N, A, 1, *S)" in refuse(Explanation, saved[Explanation], change)

    def test_stability_of_other_areas(self, saved: dict[type, Path]) -> None:
        def change(_: dict[str, Tensor], head: Head) -> None:
            head["stability"]["areas"] = [0.25, 0.6]

        assert refuse(Explanation, saved[Explanation], change).startswith("areas must be those of the explanation")

    def test_it_is_read_as_it_was_saved(self, saved: dict[type, Path]) -> None:
        loaded = Explanation.load(saved[Explanation])
        assert [verdict.label for verdict in loaded.verdict[0]] == [verdict.label for verdict in whole().verdict[0]]
        assert loaded.alternatives[0].masks.equal(whole().alternatives[0].masks)

    def test_paths(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "a")
        for kind, noun in ((Explanation, "an explanation"), (ChannelExplanation, "an explanation of channels")):
            assert message_of(kind.load, tmp_path / "a").endswith("which is a pipe; copy it to a file")
            assert message_of(kind.load, tmp_path).endswith("name a file in it")
            assert message_of(kind.load, "gs://bucket/a.safetensors") == (
                f"{noun} must be a local file, got the address 'gs:/bucket/a.safetensors'; download it first"
            )
