"""Archives of `torch.export.save` that are damaged, hostile or absurdly large: refused by `load`, in one sentence."""

import io
import json
import os
import random
import resource
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from extremal import ExtremalValueError, zoo
from support.archives import export, modify_archive, modify_program, small_network
from support.families import load_error

SAVE_AGAIN = "; save or copy it again"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(small_network(), tmp_path_factory.mktemp("archive") / "net.pt2")


def edit_json(change: Callable[[Any], None]) -> Callable[[bytes], bytes]:
    def edit(content: bytes) -> bytes:
        values = json.loads(content)
        change(values)
        return json.dumps(values).encode()

    return edit


def first_weight(values: Any) -> Any:
    return values["config"]["body.0.weight"]["tensor_meta"]


def nodes(program: Any) -> Any:
    return program["graph_module"]["graph"]["nodes"]


def add_call(target: str, **arguments: Any) -> Callable[[Any], None]:
    """Return a change that puts a call before the first node of the graph."""

    def change(program: Any) -> None:
        inputs = [{"name": name, "arg": arg, "kind": 1} for name, arg in arguments.items()]
        outputs = [{"as_tensor": {"name": "added"}}]
        node = {"target": target, "inputs": inputs, "outputs": outputs, "metadata": {}, "name": "added"}
        nodes(program).insert(0, node)

    return change


def input_name(program: Any) -> str:
    specs = program["graph_module"]["signature"]["input_specs"]
    name: str = next(spec for spec in specs if "user_input" in spec)["user_input"]["arg"]["as_tensor"]["name"]
    return name


def refuse(file: Path, max_memory: int = 300_000) -> str:
    """The message for a file that is refused without much memory, in kB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    message = load_error(f"file:{file}")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < max_memory
    assert "\n" not in message
    assert len(message) < 1000
    return message


class TestSizes:
    def test_entries_that_inflate(self, path: Path) -> None:
        copy = path.with_name("inflated.pt2")
        with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w", zipfile.ZIP_DEFLATED) as sink:
            for name in source.namelist():
                sink.writestr(name, source.read(name) if "weight_0" not in name else bytes(50_000_000))
        assert copy.stat().st_size < 1_000_000
        assert refuse(copy).endswith(
            "ValueError, its entry 'net/data/weights/weight_0' is compressed, which torch never does; "
            "save or copy it again"
        )

    def test_entries_that_share_their_bytes(self, path: Path) -> None:
        copy = path.with_name("shared.pt2")
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as sink:
            sink.writestr("net/models/model.json", bytes(1_000_000))
            for index in range(50):  # further entries of the directory that lead to the same place
                entry = zipfile.ZipInfo(f"net/{index}")
                first = sink.infolist()[0]
                for name in ("header_offset", "file_size", "compress_size", "CRC"):
                    setattr(entry, name, getattr(first, name))
                sink.filelist.append(entry)
                sink.NameToInfo[entry.filename] = entry
        copy.write_bytes(content.getvalue())
        assert "its entries would take 51.0 MB, more than the whole file" in refuse(copy)

    @pytest.mark.parametrize("size", [10**12, 2**62, 10**4000, -1, True, "3", None, 3.0])
    def test_sizes_of_weights(self, path: Path, size: Any) -> None:
        def change(values: Any) -> None:
            meta = first_weight(values)
            meta["sizes"][0]["as_int"] = size
            meta["strides"][0]["as_int"] = 0

        assert refuse(modify_archive(path, "weights_config.json", edit_json(change))).endswith(SAVE_AGAIN)

    def test_weights_that_repeat_their_values(self, path: Path) -> None:
        def change(values: Any) -> None:
            meta = first_weight(values)
            for size in meta["sizes"]:
                size["as_int"] = 1000
            for stride in meta["strides"]:
                stride["as_int"] = 0

        message = refuse(modify_archive(path, "weights_config.json", edit_json(change)))
        assert "body.0.weight has 1000000000000 values, but the file has 108 for it" in message

    def test_small_buffers_may_repeat_their_values(self, tmp_path: Path) -> None:
        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("gain", torch.tensor([2.0]).expand(16))

            def forward(self, x: Tensor) -> Tensor:
                return x.flatten(1)[:, :16] * self.gain

        net = zoo.load(f"file:{export(Net(), tmp_path / 'net.pt2')}")
        x = torch.rand(2, 3, 16, 16)
        assert torch.equal(net.model(x), x.flatten(1)[:, :16] * 2)

    @pytest.mark.parametrize("sizes", [(2, 3, 200_000, 200_000), (10**9, 3, 16, 16)])
    def test_inputs(self, path: Path, sizes: tuple[int, ...]) -> None:
        def change(program: Any) -> None:
            meta = program["graph_module"]["graph"]["tensor_values"][input_name(program)]
            for size, number in zip(meta["sizes"], sizes, strict=True):
                size["as_int"] = number

        file = modify_program(path, change)
        assert refuse(file) == (
            f"an exported network must take inputs of at most 16,777,216 values, got {str(file)!r}, which takes "
            f"{' × '.join(map(str, sizes))}; export it for smaller ones"
        )

    @pytest.mark.parametrize(
        ("target", "arguments"),
        [
            ("torch.ops.aten.ones.default", {"size": {"as_ints": [10**6, 10**5]}, "device": {"as_device": {}}}),
            ("torch.ops.aten.full.default", {"size": {"as_ints": [10**11]}, "fill_value": {"as_int": 1}}),
            ("torch.ops.aten.bincount.default", {"minlength": {"as_int": 10**11}}),
        ],
    )
    def test_results(self, path: Path, target: str, arguments: dict[str, Any]) -> None:
        def change(program: Any) -> None:
            own = {"self": {"as_tensor": {"name": "c_lifted_tensor_0"}}} if "bincount" in target else {}
            add_call(target, **own, **arguments)(program)

        assert refuse(modify_program(path, change)).endswith(SAVE_AGAIN)

    def test_results_that_double(self, path: Path) -> None:
        def change(program: Any) -> None:
            name = input_name(program)
            for index in range(60):
                add_call("torch.ops.aten.cat.default", tensors={"as_tensors": [{"name": name}, {"name": name}]})(
                    program
                )
                nodes(program)[0]["outputs"][0]["as_tensor"]["name"] = f"double{59 - index}"
                if index < 59:
                    for tensor in nodes(program)[0]["inputs"][0]["arg"]["as_tensors"]:
                        tensor["name"] = f"double{58 - index}"

        assert "which takes too much memory" in refuse(modify_program(path, change), 900_000)

    @pytest.mark.parametrize(("base", "exponent"), [(10, 10**9), (10**18, 3), (2, -(10**9))])
    def test_numbers(self, path: Path, base: int, exponent: int) -> None:
        file = modify_program(path, add_call("_operator.pow", a={"as_int": base}, b={"as_int": exponent}))
        assert "ValueError, pow must" in refuse(file)

    def test_lists_are_no_numbers(self, path: Path) -> None:
        change = add_call("_operator.mul", a={"as_ints": [0] * 100}, b={"as_int": 10**10})
        assert "ValueError, mul must take numbers" in refuse(modify_program(path, change))


class TestOperators:
    @pytest.mark.parametrize(
        ("target", "arguments"),
        [
            ("set_grad_enabled.default", {"val": {"as_bool": False}}),
            ("manual_seed.default", {"seed": {"as_int": 3}}),
            ("warn.default", {"message": {"as_string": "hello"}}),
            ("_print.default", {"s": {"as_string": "hello"}}),
            ("grad.default", {}),
            ("set_data.default", {}),
            ("_backward.default", {}),
            ("_cufft_set_plan_cache_max_size.default", {}),
        ],
    )
    def test_that_do_not_compute_tensors(self, path: Path, target: str, arguments: dict[str, Any]) -> None:
        was_enabled, state = torch.is_grad_enabled(), torch.get_rng_state()
        name = f"torch.ops.aten.{target}"
        message = refuse(modify_program(path, add_call(name, **arguments)))
        assert message.startswith("an exported network must use torch's own tensor operators only, got ")
        assert f"which calls {name!r}" in message
        assert torch.is_grad_enabled() == was_enabled
        assert torch.equal(torch.get_rng_state(), state)

    @pytest.mark.parametrize("target", ["zero_.default", "requires_grad_.default", "t_.default"])
    def test_that_change_a_weight(self, tmp_path: Path, target: str) -> None:
        linear = nn.Sequential(nn.Flatten(), nn.Linear(12, 12)).eval()
        file = export(linear, tmp_path / "net.pt2", (2, 3, 2, 2))

        def change(program: Any) -> None:
            specs = program["graph_module"]["signature"]["input_specs"]
            weight = next(spec for spec in specs if "parameter" in spec)["parameter"]["arg"]["name"]
            options = {"requires_grad": {"as_bool": False}} if "requires" in target else {}
            add_call(f"torch.ops.aten.{target}", self={"as_tensor": {"name": weight}}, **options)(program)

        message = refuse(modify_program(file, change))
        assert "its calls must not change its weights" in message or "modified by an inplace operation" in message


class TestDamage:
    def test_random_changes_of_bytes(self, path: Path, tmp_path: Path) -> None:
        content, generator = path.read_bytes(), random.Random(0)
        file = tmp_path / "net.pt2"
        for _ in range(60):
            changed = bytearray(content)
            for _ in range(generator.choice((1, 5, 50))):
                changed[generator.randrange(len(changed))] = generator.randrange(256)
            file.write_bytes(bytes(changed[: generator.choice((len(changed), generator.randrange(len(changed))))]))
            with suppress(ExtremalValueError):
                zoo.load(f"file:{file}").model(torch.zeros(2, 3, 16, 16))

    @pytest.mark.parametrize("name", ["nodes", "outputs", "tensor_values"])
    def test_a_graph_without_a_part(self, path: Path, name: str) -> None:
        empty: dict[str, Any] = {"tensor_values": {}}
        change = modify_program(
            path, lambda program: program["graph_module"]["graph"].update({name: empty.get(name, [])})
        )
        if name != "inputs":  # the signature names them too
            assert refuse(change).endswith(SAVE_AGAIN)

    def test_a_graph_whose_calls_fail(self, path: Path) -> None:
        def change(program: Any) -> None:
            nodes(program)[0]["inputs"][0]["arg"]["as_tensor"]["name"] = "p_body_0_bias"

        assert "RuntimeError" in refuse(modify_program(path, change))

    def test_outputs_that_do_not_fit_their_structure(self, path: Path) -> None:
        def change(program: Any) -> None:
            entry = program["graph_module"]["module_call_graph"][0]["signature"]
            leaf = {"type": None, "context": None, "children_spec": []}
            entry["out_spec"] = json.dumps(
                [1, {"type": "builtins.tuple", "context": "null", "children_spec": [leaf] * 3}]
            )

        assert refuse(modify_program(path, change)).endswith(SAVE_AGAIN)

    @pytest.mark.parametrize("version", [None, [], 10**4000, "9" * 5000, {"a": 1}])
    def test_versions(self, path: Path, version: Any) -> None:
        message = refuse(modify_program(path, lambda program: program["schema_version"].update(major=version)))
        assert "an exported network must have version 8 of the format" in message

    def test_deep_json(self, path: Path) -> None:
        for depth in (100, 100_000):
            text = b"[" * depth + b"]" * depth
            file = modify_archive(path, "models/model.json", lambda _, text=text: text)
            assert "its JSON is deeper than 64 levels" in refuse(file)

    def test_a_pipe(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "net.pt2")
        assert load_error(f"file:{tmp_path / 'net.pt2'}").endswith("which is a pipe; copy it to a file")

    def test_addresses_and_users(self) -> None:
        assert load_error("file:s3://bucket/net.pt2") == (
            "an exported network must be a local file, got the address 's3://bucket/net.pt2'; download it first"
        )
        assert load_error("file:~nobody-here/net.pt2") == (
            "an exported network must be an existing path, got '~nobody-here/net.pt2', whose user does not exist; "
            "give the full path"
        )
        assert "File name too long" in load_error(f"file:{'a' * 300}.pt2")
