"""Data-set runs without their optional dependencies."""

import subprocess
import sys

import pytest

CODE = """
import importlib.util
import sys

find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *package: None if name == "pyarrow" else find_spec(name, *package)
sys.modules["pyarrow"] = None
sys.argv = ["extremal", *{arguments!r}]
from extremal.cli.main import main

main()
"""


@pytest.mark.parametrize("arguments", [["run", "images", "--out", "run"], ["summary", "run"], ["status", "run"]])
def test_a_command_names_the_missing_package(arguments: list[str]) -> None:
    code = CODE.format(arguments=arguments)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        "error: data-set runs must have pyarrow, filelock, pyarrow is not installed; pip install 'extremal[jobs]'\n"
    )


def test_explain_does_not_need_it() -> None:
    code = (
        "import sys; sys.modules['pyarrow'] = None; import extremal; extremal.explain, extremal.plots, extremal.report"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
