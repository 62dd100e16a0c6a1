"""Networks from archives of `torch.export.save`: what is rejected, and that nothing in them is run."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from extremal import zoo
from support.archives import export, modify_archive, modify_program, small_network
from support.families import load_error

SAVE = "save it with torch.export.save(torch.export.export(model.eval(), (x,)), PATH)"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return export(small_network(), tmp_path / "net.pt2")


class TestRefusals:
    def test_no_such_file(self, path: Path) -> None:
        other = path.with_name("nett.pt2")
        assert load_error(f"file:{other}") == (
            f"an exported network must be an existing file, got {str(other)!r}; check the path; nearest: net.pt2"
        )

    def test_another_kind_of_file(self, tmp_path: Path) -> None:
        assert load_error("file:net.onnx") == (
            f"an exported network must be a .pt2 file of torch.export.save, got 'net.onnx'; {SAVE}"
        )
        script = tmp_path / "net.pt"
        torch.jit.trace(small_network().eval(), torch.rand(1, 3, 16, 16)).save(script)
        assert load_error(f"file:{script}") == (
            f"an exported network must be a .pt2 file of torch.export.save, got {str(script)!r}, a TorchScript "
            "archive, which is code and is not run; if you trust it, name a function of yours that returns "
            "torch.jit.load(PATH), as MODULE:CALLABLE"
        )
        file = tmp_path / "net.pt2"
        file.write_bytes(b"GIF89a" * 20)
        assert load_error(f"file:{file}") == (
            f"an exported network must be a complete archive of torch.export.save, got {str(file)!r}: BadZipFile, "
            "File is not a zip file; save or copy it again"
        )
        torch.save(small_network().state_dict(), file)
        assert load_error(f"file:{file}") == (
            f"an exported network must be one program of torch.export.save (torch 2.9 or later), got {str(file)!r}, "
            f"which holds 0; {SAVE}"
        )

    def test_other_weights(self, path: Path) -> None:
        assert load_error(f"file:{path}", "random") == (
            f"file:{path} includes its weights, got --weights 'random'; omit them"
        )

    def test_truncated(self, path: Path) -> None:
        broken = modify_archive(path, "models/model.json", lambda content: content[:900])
        message = load_error(f"file:{broken}")
        start = (
            f"an exported network must be a complete archive of torch.export.save, got {str(broken)!r}: "
            "JSONDecodeError, "
        )
        assert message.startswith(start)
        assert message.endswith("; save or copy it again")
        short = modify_archive(path, "weight_0", lambda content: content[:40])
        assert load_error(f"file:{short}").startswith(start.replace("JSONDecodeError", "RuntimeError"))
        missing = modify_archive(path, "weight_0", lambda _: None)
        assert load_error(f"file:{missing}").startswith(start.replace("JSONDecodeError", "KeyError"))

    def test_without_values(self, path: Path) -> None:
        empty = modify_archive(path, "weights/weight_0", lambda _: b"")
        assert load_error(f"file:{empty}") == (
            f"an exported network must hold its weights, got {str(empty)!r}, which has no values of 'body.0.weight'; "
            "export it with real tensors"
        )

    def test_another_version(self, path: Path) -> None:
        other = modify_program(path, lambda program: program["schema_version"].update(major=9))
        assert load_error(f"file:{other}") == (
            f"an exported network must have version 8 of the format, got {str(other)!r}, which has version 9; save it "
            "by another torch"
        )
        older = modify_archive(path, "weights_config.json", lambda _: None)
        assert load_error(f"file:{older}") == (
            f"an exported network must be saved by torch 2.9 or later, got {str(older)!r}, which has its weights in "
            "another form; save it again"
        )

    def test_in_training(self, tmp_path: Path) -> None:
        for layer, name in ((nn.Dropout(), "dropout"), (nn.BatchNorm2d(3), "batch_norm")):
            file = export(
                nn.Sequential(layer, nn.Flatten(), nn.Linear(12, 2)).train(), tmp_path / "n.pt2", (2, 3, 2, 2)
            )
            assert load_error(f"file:{file}") == (
                f"an exported network must be exported in evaluation mode, got {str(file)!r}, whose {name!r} is in "
                "training; call eval() and export it again"
            )

    def test_norms_that_keep_no_averages_are_not_in_training(self, tmp_path: Path) -> None:
        module = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.Flatten()).eval()
        net = zoo.load(f"file:{export(module, tmp_path / 'net.pt2', (2, 3, 2, 2))}")
        x = torch.rand(2, 3, 2, 2)
        assert torch.equal(net.model(x), module(x))

    def test_other_inputs(self, tmp_path: Path) -> None:
        class Two(nn.Module):
            def forward(self, x: Tensor, y: Tensor) -> Tensor:
                return x + y

        file, x = tmp_path / "net.pt2", torch.rand(2, 3)
        torch.export.save(torch.export.export(Two(), (x, x)), file)
        assert load_error(f"file:{file}") == (
            f"an exported network must take one tensor, got {str(file)!r}, which takes 2; wrap the module before the "
            "export"
        )
        torch.export.save(torch.export.export(nn.Embedding(5, 2), (torch.tensor([[1]]),)), file)
        assert load_error(f"file:{file}") == (
            f"an exported network must take floating inputs, got {str(file)!r}, which takes whole numbers; leave its "
            "preprocessing out of the export"
        )


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.file,)


class TestNothingIsRun:
    def test_sample_inputs_are_not_opened(self, path: Path, tmp_path: Path) -> None:
        trap = tmp_path / "sprung"
        set_up = modify_archive(path, "sample_inputs/model.pt", lambda _: pickle.dumps(Trap(trap), protocol=2))
        net = zoo.load(f"file:{set_up}")
        assert torch.equal(
            net.model(torch.ones(2, 3, 16, 16)), zoo.load(f"file:{path}").model(torch.ones(2, 3, 16, 16))
        )
        assert not trap.exists()
        with pytest.raises(Exception):  # noqa: B017, PT011
            torch.export.load(set_up)
        assert trap.exists()  # torch's own loader springs it

    @pytest.mark.parametrize("part", ["weights", "constants"])
    def test_pickled_tensors_are_rejected(self, part: str, path: Path, tmp_path: Path) -> None:
        names = []

        def edit(content: bytes) -> bytes:
            config = json.loads(content)
            name = next(iter(config["config"]))
            config["config"][name]["use_pickle"] = True
            names.append(name)
            return json.dumps(config).encode()

        trap = tmp_path / "sprung"
        set_up = modify_archive(path, f"{part}_config.json", edit)
        set_up = modify_archive(set_up, f"data/{part}/weight_0", lambda _: pickle.dumps(Trap(trap), protocol=2))
        assert load_error(f"file:{set_up}") == (
            f"an exported network must hold plain tensors only, got {str(set_up)!r}, whose {names[0]!r} would have to "
            "be unpickled, which may run any code; export it without tensor subclasses and objects of other kinds"
        )
        assert not trap.exists()

    @pytest.mark.parametrize(
        "target",
        [
            "torch.os.system",
            "torch.load",
            "torch.ops.aten.from_file.default",
            "torch.ops.aten.save.default",
            "torch.ops.aten.__class__.mro",
            "torch.ops.image.read_file.default",
            "torch.ops.higher_order.cond",
            "_operator.attrgetter",
            "_operator.methodcaller",
            "math.__loader__.load_module",
            "#mine:op",
            "eval",
        ],
    )
    def test_only_operators_are_called(self, target: str, path: Path) -> None:
        set_up = modify_program(
            path, lambda program: program["graph_module"]["graph"]["nodes"][0].update(target=target)
        )
        assert load_error(f"file:{set_up}") == (
            f"an exported network must use torch's own tensor operators only, got {str(set_up)!r}, which calls "
            f"{target!r}; export it without, or load the module itself with MODULE:CALLABLE"
        )

    @pytest.mark.parametrize("name", ["__class__", "body.0.__init__.__globals__", "nothing"])
    def test_only_tensors_of_the_archive_are_read(self, name: str, path: Path) -> None:
        def edit(program: dict[str, Any]) -> None:
            specs = program["graph_module"]["signature"]["input_specs"]
            next(spec for spec in specs if "parameter" in spec)["parameter"]["parameter_name"] = name

        assert load_error(f"file:{modify_program(path, edit)}").endswith(f": KeyError, {name!r}; save or copy it again")

    def test_operators_on_files_are_those_that_take_a_file_name(self) -> None:
        """What is refused by that name is all that there is."""
        on_files = {
            schema.name
            for schema in torch._C._jit_get_all_schemas()
            for argument in schema.arguments
            if "str" in str(argument.type) and any(word in argument.name for word in ("file", "path", "url", "dir"))
        }
        assert {name for name in on_files if name.startswith("aten::")} == {"aten::from_file", "aten::save"}

    def test_expressions_are_not_evaluated(self, tmp_path: Path) -> None:
        trap = tmp_path / "sprung"
        code = f"open({str(trap)!r}, 'w').name or 2"
        file = export(small_network(), tmp_path / "net.pt2", sizes={0: torch.export.Dim("B")})
        set_up = modify_archive(file, "models/model.json", lambda content: self.with_code(content, code))
        net = zoo.load(f"file:{set_up}")
        x = torch.rand(3, 3, 16, 16)
        assert torch.equal(net.model(x), zoo.load(f"file:{file}").model(x))
        assert not trap.exists()
        with pytest.raises(Exception):  # noqa: B017, PT011
            torch.export.load(set_up)
        assert trap.exists()  # torch's own loader springs it

    @staticmethod
    def with_code(content: bytes, code: str) -> bytes:
        program = json.loads(content)
        for meta in program["graph_module"]["graph"]["tensor_values"].values():
            for size in meta["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = code
        return json.dumps(program).encode()
