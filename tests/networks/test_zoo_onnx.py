"""Networks from ONNX files: equal to what was exported, and to onnxruntime."""

import pickle
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from extremal import explain, zoo
from extremal.errors import ExtremalValueError, Notice
from extremal.masking.solvers import Path as Solver
from support.families import assert_explains_and_restores, load_error, noise_image
from support.onnx_files import SmallClassifier, export_onnx, write_graph

pytest.importorskip("onnx2pytorch")
pytest.importorskip("onnxruntime")

ANY_BATCH = {"input_names": ["x"], "dynamic_axes": {"x": {0: "B"}}}
WITH_NORMS = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
FLATTEN = ("Flatten", ["x"], ["y"])

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore::extremal.errors.Notice")]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "net.onnx"


def refuse(path: Path) -> str:
    message = load_error(f"onnx:{path}")
    assert "\n" not in message
    return message.removeprefix("an ONNX network must ").replace(repr(str(path)), "FILE")


class TestOnnx:
    @pytest.mark.parametrize("options", [{}, ANY_BATCH, WITH_NORMS])
    def test_it_returns_the_output_of_the_exported_network(self, options: dict[str, Any], file: Path) -> None:
        model = SmallClassifier()
        net = zoo.load(f"onnx:{export_onnx(model, file, **options)}")
        x = torch.rand(3, 3, 16, 16)
        with net.frozen() as run, torch.no_grad():
            torch.testing.assert_close(run(x), model(x), atol=1e-5, rtol=0)
            assert run.row_error is None
        assert net.name == f"onnx:{file}"
        assert_explains_and_restores(net, x[:1])

    def test_masks_are_those_of_the_exported_network(self, file: Path) -> None:
        model = SmallClassifier()
        x = torch.rand(1, 3, 16, 16)
        net = zoo.load(f"onnx:{export_onnx(model, file)}")
        quick = Solver(steps=8, polish=2, draws=1, search=1)
        ours, theirs = (explain(one, x, 1, areas=(0.1, 0.3), solver=quick).masks > 0.5 for one in (net, model))
        assert float((ours & theirs).sum() / (ours | theirs).sum()) > 0.99

    def test_images_are_resized_and_scaled_as_a_notice_says(self, file: Path) -> None:
        export_onnx(SmallClassifier(), file)
        with pytest.warns(Notice) as notices:
            net = zoo.load(f"onnx:{file}")
        assert [str(one.message) for one in notices] == [
            f"onnx:{file} does not describe its preprocessing: images are cropped and resized to 16×16 px and scaled "
            "to 0 .. 1, which may differ from that in training"
        ]
        assert notices[0].filename == __file__
        x = net.prepare(noise_image(16))
        torch.testing.assert_close(x[0], torch.from_numpy(np.array(noise_image(16))).movedim(-1, 0) / 255)
        assert net.prepare(Image.new("RGB", (50, 20))).shape == (1, 3, 16, 16)
        own = replace(net, labels=("cat", "dog", "car"), mean=(0.5,), std=(0.5,))
        assert own.label(1) == "dog"

    def test_weights_as_constant_nodes_and_through_identities(self, file: Path) -> None:
        weight = np.random.default_rng(0).normal(size=(192, 2)).astype(np.float32)
        import onnx
        from onnx import numpy_helper

        nodes = [
            ("Constant", [], ["w"], {"value": numpy_helper.from_array(weight)}),
            ("Identity", ["b"], ["same"]),
            ("Constant", [], ["two"], {"value_float": 2.0}),
            ("Flatten", ["x"], ["flat"]),
            ("Gemm", ["flat", "w", "same"], ["z"]),
            ("Mul", ["z", "two"], ["y"]),
        ]
        write_graph(file, nodes, weights={"b": np.array([1.0, -1.0], np.float32)})
        assert onnx.load(file).graph.node[0].op_type == "Constant"
        x = torch.rand(2, 3, 8, 8)
        expected = 2 * (x.flatten(1) @ torch.from_numpy(weight) + torch.tensor([1.0, -1.0]))
        torch.testing.assert_close(zoo.load(f"onnx:{file}").model(x), expected, atol=1e-5, rtol=1e-5)

    def test_a_file_for_one_row_is_evaluated_row_by_row(self, file: Path) -> None:
        start = np.array([1, 192], np.int64)
        nodes = [("Reshape", ["x", "shape"], ["flat"]), ("Transpose", ["flat"], ["t"], {"perm": [1, 0]})]
        nodes += [("Reshape", ["t", "shape"], ["y"])]  # of several rows, it would mix them
        write_graph(file, nodes, sizes=(1, 3, 8, 8), weights={"shape": start})
        net = zoo.load(f"onnx:{file}")
        x = torch.rand(3, 3, 8, 8)
        with net.frozen() as run:
            torch.testing.assert_close(run(x), x.flatten(1))
            assert str(run.row_error) == "the ONNX file was exported for one row"

    def test_the_only_scores_of_classes_among_several_outputs(self, file: Path) -> None:
        nodes = [("Relu", ["x"], ["map"]), ("GlobalAveragePool", ["map"], ["pooled"]), ("Flatten", ["pooled"], ["y"])]
        net = zoo.load(f"onnx:{write_graph(file, nodes, outputs={'map': 4, 'y': 2})}")
        assert net.model(torch.rand(2, 3, 8, 8)).shape == (2, 3)

    def test_weights_in_a_file_beside_it(self, file: Path) -> None:
        import onnx

        model = SmallClassifier()
        loaded = onnx.load(export_onnx(model, file))
        onnx.save(loaded, file, save_as_external_data=True, location="net.data", size_threshold=0)
        x = torch.rand(1, 3, 16, 16)
        with torch.no_grad():
            torch.testing.assert_close(zoo.load(f"onnx:{file}").model(x), model(x), atol=1e-5, rtol=0)
        data = file.with_name("net.data")
        data.write_bytes(data.read_bytes()[:-400])
        assert "weights of an ONNX network must be complete, got" in load_error(f"onnx:{file}")
        data.unlink()
        assert "copy it there with the .onnx file" in load_error(f"onnx:{file}")

    @pytest.mark.parametrize("location", ["../net.data", "/etc/passwd"])
    def test_weights_elsewhere(self, location: str, file: Path) -> None:
        import onnx

        (file.parent.parent / "net.data").write_bytes(bytes(10_000))
        model = onnx.load(export_onnx(SmallClassifier(), file))
        onnx.save(model, file, save_as_external_data=True, location="net.data", size_threshold=0)
        model = onnx.load(file, load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        file.write_bytes(model.SerializeToString())
        assert f"must lie in its folder, got {str(file)!r} with {location!r}; copy them there" in load_error(
            f"onnx:{file}"
        )

    def test_the_explained_input_is_compared(self, file: Path) -> None:
        """A kind of network that differs only for some inputs."""
        net = zoo.load(f"onnx:{export_onnx(SmallClassifier(), file)}")
        head: Any = net.model
        correct = head.converted

        class Wrong(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                output: Tensor = correct(x)
                return output + (x.mean() > 0.9)

        head.converted = Wrong()
        explain(
            net, torch.full((1, 3, 16, 16), 0.5), 0, areas=(0.2,), solver=Solver(steps=1, polish=0, draws=1, search=0)
        )
        with pytest.raises(ExtremalValueError, match=r"must compute what onnxruntime computes, onnx:.* differs by"):
            explain(net, torch.ones(1, 3, 16, 16), 0, areas=(0.2,))

    def test_its_check_can_be_pickled(self, file: Path) -> None:
        net = zoo.load(f"onnx:{export_onnx(SmallClassifier(), file)}")
        assert net.check_output is not None
        x = torch.rand(1, 3, 16, 16)
        with torch.no_grad():
            pickle.loads(pickle.dumps(net.check_output))(x, net.model(x))


class TestOnnxRefusals:
    def test_not_a_file(self, tmp_path: Path, file: Path) -> None:
        file.write_bytes(b"")
        assert refuse(tmp_path / "nett.onnx") == "be an existing file, got FILE; check the path; nearest: net.onnx"
        assert refuse(tmp_path / "a.pb") == "be a .onnx file, got FILE; export it with torch.onnx.export"
        (tmp_path / "folder.onnx").mkdir()
        assert "be a file, got the folder FILE" in refuse(tmp_path / "folder.onnx")
        assert (
            load_error(f"onnx:{file}", "random")
            == f"onnx:{file} includes its weights, got --weights 'random'; omit them"
        )

    @pytest.mark.parametrize("content", [b"", b"\x00\xff" * 50, b"not an ONNX file"])
    def test_damaged(self, content: bytes, file: Path) -> None:
        file.write_bytes(content)
        assert refuse(file).startswith("be a complete file that onnx2pytorch converts, got FILE: ")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {"inputs": ("x", "z")},
                "have one input, got FILE with 2 ('x', 'z'); export it with the others as constants",
            ),
            (
                {"kind": "INT64", "sizes": (1, 20)},
                "take floating inputs in float32, got FILE which takes int64 (1, 20); export it in float32, without "
                "its preprocessing",
            ),
            (
                {"kind": "FLOAT16"},
                "take floating inputs in float32, got FILE which takes float16 (any, 3, 8, 8); export it in float32, "
                "without its preprocessing",
            ),
            (
                {"sizes": (4, 3, 8, 8)},
                "take any batch, or batches of one, got FILE which takes 4 rows at once; export it with a variable "
                "batch axis",
            ),
            (
                {"sizes": (1, 8, 8, 3)},
                "have channels on axis 1, got FILE which takes (1, 8, 8, 3); export it with channels first",
            ),
            (
                {"sizes": (1, 3, 100_000, 100_000)},
                "take inputs (N, C, *S) of at most 4096 places a side, got FILE which takes (1, 3, 100000, 100000); "
                "export it with these",
            ),
            ({"domain": "com.microsoft"}, "with the operator Flatten of com.microsoft; export it without"),
        ],
    )
    def test_inputs_and_domains(self, options: dict[str, Any], message: str, file: Path) -> None:
        assert message in refuse(write_graph(file, [FLATTEN], **options))

    @pytest.mark.parametrize(
        ("node", "message"),
        [
            (
                ("QuantizeLinear", ["x", "one"], ["y"]),
                "have operators that pass a gradient, got FILE with the quantised operator QuantizeLinear; export it "
                "before it is quantised",
            ),
            (
                ("Hardmax", ["x"], ["y"]),
                "pass a gradient to its input, got FILE which does not; load the original in Python",
            ),
            (("Unfold", ["x"], ["y"]), "be a complete file that onnx2pytorch converts, got FILE: ValidationError"),
            (("IsNaN", ["x"], ["y"]), "return a floating tensor, got FILE which does not; export its scores"),
            (("RandomNormalLike", ["x"], ["y"]), "differs by"),
        ],
    )
    def test_operators(self, node: Any, message: str, file: Path) -> None:
        assert message in refuse(write_graph(file, [node], weights={"one": np.ones((), np.float32)}))

    def test_several_outputs(self, file: Path) -> None:
        nodes = [("Flatten", ["x"], ["a"]), ("Neg", ["a"], ["b"])]
        assert refuse(write_graph(file, nodes, outputs={"a": 2, "b": 2})) == (
            "have one output, or one of them (N, classes), got FILE with 2: 'a' (1, 192), 'b' (1, 192); remove the "
            "others, e.g. with onnx.utils.extract_model"
        )

    def test_half_precision_inside(self, file: Path) -> None:
        nodes = [("Cast", ["x"], ["h"], {"to": 10}), ("Mul", ["h", "w"], ["m"]), ("Cast", ["m"], ["y"], {"to": 1})]
        write_graph(file, nodes, weights={"w": np.ones(1, np.float16)})
        assert refuse(file) == "compute in float32, got FILE with weights in float16; export it in float32"

    def test_control_flow(self, file: Path) -> None:
        from onnx import TensorProto, helper

        branch = helper.make_graph(
            [helper.make_node("Identity", ["x"], ["z"])],
            "branch",
            [],
            [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N"] * 4)],
        )
        nodes = [("If", ["yes"], ["y"], {"then_branch": branch, "else_branch": branch})]
        write_graph(file, nodes, weights={"yes": np.array(True)})
        assert refuse(file) == (
            "have operators of ONNX on tensors, without control flow, got FILE with the operator If; export it "
            "without, or load the original in Python"
        )

    def test_results_that_take_too_much_memory(self, file: Path) -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        nodes = [("ConstantOfShape", ["shape"], ["big"]), ("ReduceSum", ["big"], ["s"]), ("Mul", ["x", "s"], ["y"])]
        write_graph(file, nodes, weights={"shape": np.array([10**5, 10**5], np.int64)})
        assert "values, which takes too much memory" in refuse(file)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # KiB
