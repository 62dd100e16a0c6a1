"""Write docs/api.md: the public names with their signatures and what their docstrings say, read from the source.

Use: python examples/api_page.py [--check]      (--check writes nothing; the exit code tells whether it is up to date)
"""

import ast
import inspect
import re
import sys
import tokenize
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from textwrap import shorten

PAGE = Path(__file__).parent.parent / "docs" / "api.md"
WIDTH = 108  # from which on a signature has one argument a line
HEAD = """# API reference

Every public name, written by `examples/api_page.py` from the source, whose docstrings tell more, with examples.
Shapes: inputs (N, C, *S), masks (N, K, 1, *S), scores (N, K), where N counts inputs and K masks, and S are one to three
dimensions. What breaks a rule raises `ExtremalValueError` or `ExtremalTypeError`, both an `ExtremalError`.
"""
GROUPS: dict[str, tuple[str, str, tuple[str, ...]]] = {  # heading -> module, what it is, names; none: all in __all__
    "The package": ("extremal", "what `import extremal` gives", ()),
    "Results": ("extremal.explanation", "what an `Explanation` hands out", ("Curve", "Sufficient")),
    "Evidence": ("extremal.evidence", "how masks are judged", ("Verdict", "Status")),
    "Certificates": ("extremal.smallest", "what `smallest_area` finds", ("Certificate",)),
    "Networks by name": ("extremal.zoo", "what `--network` takes", ("load", "names")),
    "Inputs": ("extremal.networks.inputs", "from images to prepared tensors", ("prepare", "read_image_file")),
    "Questions": ("extremal.scores", "what may be asked of a network", ()),
    "Perturbations": (
        "extremal.perturbations",
        "what a mask does to an input",
        ("PERTURBATIONS", "Perturbation", "Perturb", "Blur", "Fade", "Constant", "Noise", "ScaleChannels"),
    ),
    "Games": (
        "extremal.games",
        "what a solver is paid for",
        ("GAMES", "Game", "Reward", "Evaluate", "preserve", "delete", "dual"),
    ),
    "Solvers": ("extremal.solvers", "how masks are found", ()),
    "Cutting": ("extremal.area", "masks of exact areas of any map", ("cut",)),
    "Export": ("extremal.export", "cut masks for other tools", ("write_png", "coco_rle", "polygons")),
    "Figures": ("extremal.plots", "a result as a figure", ("figure", "write_figure")),
    "captum": ("extremal.captum", "a method of captum", ("ExtremalPerturbation",)),
    "Quantus": ("extremal.quantus", "an `explain_func` of Quantus", ("explain",)),
    "Methods to compare with": ("extremal.baselines", "needs `pip install 'extremal[benchmark]'`", ()),
    "Measures of maps": ("extremal.benchmark.metrics", "pure functions", ()),
}

Node = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


@dataclass(frozen=True)
class Source:
    """A module's text and tree."""

    name: str
    package: bool
    text: str
    tree: ast.Module

    @property
    def comments(self) -> dict[int, str]:
        """The comment at the end of each line that has one."""
        tokens = tokenize.generate_tokens(StringIO(self.text).readline)
        return {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}


def source(module: str) -> Source:
    """The source of a module, which is not run."""
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    text = Path(spec.origin).read_text(encoding="utf-8")
    return Source(module, spec.submodule_search_locations is not None, text, ast.parse(text))


def home(module: str, name: str) -> tuple[Source, Node]:
    """Where a name is defined, through whatever modules import it from each other."""
    found = source(module)
    for node in found.tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return found, node
        if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == name for target in node.targets):
            return found, node
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == name:
            return found, node
    for node in ast.walk(found.tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return home(node.module, alias.name)
    raise LookupError(f"{module}.{name} is defined nowhere")


def sections(docstring: str) -> dict[str, str]:
    """The first sentence or paragraph under "", and Args, Returns, Raises, dedented."""
    parts = re.split(r"^(Args|Returns|Raises):\n", inspect.cleandoc(docstring), flags=re.MULTILINE)
    first = " ".join(parts[0].split("\n\n")[0].split())
    return {"": first, **{k: inspect.cleandoc(v) for k, v in zip(parts[1::2], parts[2::2], strict=True)}}


def bullets(text: str) -> list[str]:
    """`name: what` entries, each of which may go on over indented lines, as list items."""
    entries = re.sub(r"\n +", " ", text.split("\n\n", maxsplit=1)[0]).splitlines()
    return [
        re.sub(r"^([\w*, ]+): ", lambda m: "- " + ", ".join(f"`{n.strip()}`" for n in m[1].split(",")) + ": ", entry)
        for entry in entries
    ]


def signature(name: str, node: ast.FunctionDef, *, method: bool = False) -> str:
    """`name(arguments) -> result`, one argument a line where it is long."""
    arguments = node.args
    static = any(getattr(d, "id", "") == "staticmethod" for d in node.decorator_list)
    if method and not static and arguments.args:
        arguments = ast.arguments(
            **{**{field: getattr(arguments, field) for field in arguments._fields}, "args": arguments.args[1:]}
        )
    result = f" -> {ast.unparse(node.returns)}" if node.returns and name != "__init__" else ""
    return laid_out(name, arguments_of(arguments), result)


def arguments_of(arguments: ast.arguments) -> list[str]:
    """Each argument with its annotation and default, `/` and `*` where they stand."""
    plain = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(plain) - len(arguments.defaults)) + list(arguments.defaults)
    told = [argument(one, default) for one, default in zip(plain, defaults, strict=True)]
    if arguments.posonlyargs:
        told.insert(len(arguments.posonlyargs), "/")
    if arguments.vararg:
        told.append(f"*{argument(arguments.vararg, None)}")
    elif arguments.kwonlyargs:
        told.append("*")
    return told + [argument(*pair) for pair in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]


def argument(one: ast.arg, default: ast.expr | None) -> str:
    kind = f": {ast.unparse(one.annotation).strip(chr(39))}" if one.annotation else ""
    return one.arg + kind + ("" if default is None else f" = {ast.unparse(default)}")


def laid_out(name: str, arguments: list[str], result: str) -> str:
    short = f"{name}({', '.join(arguments)}){result}"
    return short if len(short) <= WIDTH else f"{name}(\n" + "".join(f"    {one},\n" for one in arguments) + f"){result}"


def fields(node: ast.ClassDef, found: Source) -> list[tuple[str, str]]:
    """The public fields of a dataclass as `name: type = default`, and the comments beside them."""
    if not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        return []
    told = []
    for one in node.body:
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name) and not one.target.id.startswith("_"):
            value = ast.unparse(one.value) if one.value else ""
            if "init=False" in value:
                continue
            text = f"{one.target.id}: {ast.unparse(one.annotation)}".replace("'", "") + (f" = {value}" if value else "")
            told.append((text, found.comments.get(one.lineno, "")))
    return told


def class_entry(name: str, node: ast.ClassDef, found: Source) -> list[str]:
    """Signature, docstring, fields, methods."""
    doc, own = sections(ast.get_docstring(node) or ""), fields(node, found)
    methods = [one for one in node.body if isinstance(one, ast.FunctionDef)]
    init = next((one for one in methods if one.name == "__init__"), None)
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    if "Args" in doc and own:
        head = laid_out(name, [one for one, _ in own], "")
    elif init:
        head = signature(name, init, method=True).removesuffix(" -> None")
    else:
        head = f"class {name}" + (f"({bases})" if bases else "")
    lines = [*code(head), "", doc[""]]
    if "Args" in doc:
        lines += ["", *bullets(doc["Args"])]
    elif own:
        lines += ["", *(f"- `{one}`" + (f": {comment}" if comment else "") for one, comment in own)]
    members = [one for one in methods if not one.name.startswith("_") or one.name == "__call__"]
    if members:
        lines += ["", "Methods and properties:", "", *map(member, members)]
    return lines


def member(node: ast.FunctionDef) -> str:
    """A method or property as one list item."""
    called = "" if any(getattr(d, "id", "") == "property" for d in node.decorator_list) else None
    said = " ".join(sections(ast.get_docstring(node) or "")[""].split())
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    static = any(getattr(d, "id", "") == "staticmethod" for d in node.decorator_list)
    arguments = arguments_of(node.args)[0 if static else 1 :]
    told = node.name + (f"({', '.join(arguments)})" if called is None else "") + result
    return f"- `{told.replace(chr(39), '')}`" + (f": {said}" if said else "")


def code(text: str) -> list[str]:
    return ["```text", *text.splitlines(), "```"]


def entry(module: str, name: str) -> list[str]:
    """One public name."""
    found, node = home(module, name)
    if isinstance(node, ast.ClassDef):
        return class_entry(name, node, found)
    if isinstance(node, ast.FunctionDef):
        doc = sections(ast.get_docstring(node) or "")
        lines = [*code(signature(name, node)), "", doc[""]]
        if "Args" in doc:
            lines += ["", *bullets(doc["Args"])]
        if "Returns" in doc:
            lines += ["", "Returns: " + " ".join(doc["Returns"].split())]
        return lines
    value = getattr(import_module(module), name)
    if isinstance(value, dict):
        return [f"By short name: {', '.join(f'`{key}`' for key in value)}."]
    comment = found.comments.get(node.lineno, "")
    text = shorten(ast.unparse(node.value), 200) if node.value else ""
    return [f"`{text}`" + (f": {comment}" if comment else "")]


def public(module: str) -> list[str]:
    """The names that a module declares public."""
    names = [name for name in import_module(module).__all__ if name != "zoo"]
    return sorted(names, key=lambda name: (name.isupper(), not name[0].isupper(), name))


def place(name: str) -> str:
    """The module in which the top level's names are defined."""
    homes = import_module("extremal")._HOMES
    return f"extremal.{homes[name]}"


def escaped(line: str) -> str:
    """Prose in which no star or underscore outside of code is read as emphasis."""
    parts = line.split("`")
    parts[::2] = [re.sub(r"([*_])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


def page() -> str:
    """The whole page."""
    lines = HEAD.splitlines()
    for heading, (module, what, names) in GROUPS.items():
        lines += ["", f"## {heading}", "", f"`{module}`: {what}."]
        for name in names or public(module):
            lines += ["", f"### `{name}`", "", *entry(place(name) if module == "extremal" else module, name)]
    inside, told = False, []
    for line in lines:
        fence = line.startswith("```")
        told.append(line if inside or fence else escaped(line))
        inside ^= fence
    return "\n".join(told) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(PAGE.read_text(encoding="utf-8") != page())
    PAGE.write_text(page(), encoding="utf-8")
