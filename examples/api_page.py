"""Write docs/api.md: the public names with their signatures and docstrings, read from the source.

Usage: python examples/api_page.py [--check]      (--check writes nothing and exits with 1 if the page is out of date)
"""

import ast
import inspect
import re
import sys
import tokenize
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from textwrap import shorten
from types import ModuleType

PAGE = Path(__file__).parent.parent / "docs" / "api.md"
MAX_WIDTH = 108  # longer signatures have one argument per line
HEAD = """# API reference

All public names. `examples/api_page.py` writes this page from the source; the docstrings there contain more details
and examples. Shapes: inputs (N, C, *S), masks (N, K, 1, *S), scores (N, K), with N inputs, K masks, and one to three
spatial dimensions S. Invalid arguments raise `ExtremalValueError` or `ExtremalTypeError`, both subclasses of
`ExtremalError`.
"""
VIEW_MODULES = (  # base classes whose methods are listed with the class
    "extremal.explanations.display",
    "extremal.explanations.explanation_views",
    "extremal.explanations.channels.views",
)
# heading -> module, description, names (all if empty)
GROUPS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "The package": ("extremal", "the names of `import extremal`", ()),
    "Curves": ("extremal.explanations.evidence_curve", "the result of `Explanation.curve`", ("EvidenceCurve",)),
    "Regions": ("extremal.explanations.regions", "the result of `Explanation.smallest`", ("SufficientRegion",)),
    "Evidence": ("extremal.explanations.verdict", "how masks are judged", ("Verdict", "Status", "reach_verdict")),
    "Certificates": ("extremal.explanations.certificate", "the result of `smallest_area`", ("Certificate",)),
    "Networks by name": ("extremal.zoo", "the networks of `--network`", ("load", "names")),
    "Inputs": ("extremal.networks.inputs", "from images to prepared tensors", ("prepare", "read_image_file")),
    "Questions": ("extremal.scores", "scores and queries of a network", ()),
    "Perturbations": (
        "extremal.perturbations",
        "the effect of a mask on an input",
        (
            *("PERTURBATIONS", "Perturbation", "Perturb", "Mix", "Blur", "Fade", "Constant", "Noise"),
            *("Extreme", "Mosaic", "ScaleChannels", "get_perturbation"),
        ),
    ),
    "Games": (
        "extremal.games",
        "the rewards of a solver",
        ("GAMES", "Game", "Reward", "Evaluate", "preserve", "delete", "dual"),
    ),
    "Solvers": ("extremal.solvers", "how masks are found", ()),
    "Cutting": ("extremal.masking.area", "masks of exact areas from any map", ("cut",)),
    "Export": ("extremal.export", "cut masks for other tools", ("write_png", "coco_rle", "polygons")),
    "Figures": ("extremal.plots", "a result as a figure", ("figure", "write_figure")),
    "Data sets": ("extremal.jobs", "resumable runs over data sets", ()),
    "captum": ("extremal.captum", "a captum method", ("ExtremalPerturbation",)),
    "Quantus": ("extremal.quantus", "an `explain_func` for Quantus", ("explain",)),
    "Rival methods": ("extremal.baselines", "needs `pip install 'extremal[benchmark]'`", ()),
    "Metrics of maps": ("extremal.benchmark.metrics", "pure functions", ()),
}

Node = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


@dataclass(frozen=True)
class Source:
    """Text and syntax tree of a module."""

    name: str
    package: bool
    text: str
    tree: ast.Module

    @property
    def comments(self) -> dict[int, str]:
        """Return the trailing comments, by line number."""
        tokens = tokenize.generate_tokens(StringIO(self.text).readline)
        return {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}


@cache
def load_module(path: str) -> ModuleType:
    """Import a module by its public path, such as `extremal.solvers`, which need not be where its file is."""
    package, *attributes = path.split(".")
    module = import_module(package)
    for attribute in attributes:
        module = getattr(module, attribute, None) or import_module(f"{module.__name__}.{attribute}")
    return module


@cache
def read_source(module: str) -> Source:
    """Read the source of a module without running it; of a package with a stub, the stub."""
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin)
    stub = path.with_suffix(".pyi")
    text = (stub if stub.exists() else path).read_text(encoding="utf-8")
    return Source(module, spec.submodule_search_locations is not None, text, ast.parse(text))


def find_definition(module: str, name: str) -> tuple[Source, Node]:
    """Find the definition of a name, following imports."""
    source = read_source(module)
    for node in source.tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return source, node
        if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == name for target in node.targets):
            return source, node
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == name:
            return source, node
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ImportFrom):
            package = module if source.package else module.rpartition(".")[0]
            origin = f"{package}.{node.module or ''}".rstrip(".") if node.level else str(node.module)
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return find_definition(origin, alias.name)
    raise LookupError(f"{module}.{name} has no definition")


def sections(docstring: str) -> dict[str, str]:
    """Split a docstring into its first paragraph (key "") and its Args, Returns and Raises, dedented."""
    parts = re.split(r"^(Args|Returns|Raises):\n", inspect.cleandoc(docstring), flags=re.MULTILINE)
    first = " ".join(parts[0].split("\n\n")[0].split())
    return {"": first, **{k: inspect.cleandoc(v) for k, v in zip(parts[1::2], parts[2::2], strict=True)}}


def bullets(text: str) -> list[str]:
    """Convert `name: description` entries, with their continuation lines, to list items."""
    entries = re.sub(r"\n +", " ", text.split("\n\n", maxsplit=1)[0]).splitlines()
    return [
        re.sub(r"^([\w*, ]+): ", lambda m: "- " + ", ".join(f"`{n.strip()}`" for n in m[1].split(",")) + ": ", entry)
        for entry in entries
    ]


def format_signature(name: str, node: ast.FunctionDef, *, method: bool = False) -> str:
    """Format `name(arguments) -> result`, with one argument per line if it is long."""
    arguments = node.args
    static = any(getattr(d, "id", "") == "staticmethod" for d in node.decorator_list)
    if method and not static and arguments.args:
        arguments = ast.arguments(
            **{**{field: getattr(arguments, field) for field in arguments._fields}, "args": arguments.args[1:]}
        )
    result = f" -> {ast.unparse(node.returns)}" if node.returns and name != "__init__" else ""
    return wrap_arguments(name, format_arguments(arguments), result)


def format_arguments(arguments: ast.arguments) -> list[str]:
    """Format each argument with its annotation and default, including `/` and `*`."""
    plain = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(plain) - len(arguments.defaults)) + list(arguments.defaults)
    parts = [format_argument(item, default) for item, default in zip(plain, defaults, strict=True)]
    if arguments.posonlyargs:
        parts.insert(len(arguments.posonlyargs), "/")
    if arguments.vararg:
        parts.append(f"*{format_argument(arguments.vararg, None)}")
    elif arguments.kwonlyargs:
        parts.append("*")
    parts += [format_argument(*pair) for pair in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return parts + ([f"**{format_argument(arguments.kwarg, None)}"] if arguments.kwarg else [])


def format_argument(item: ast.arg, default: ast.expr | None) -> str:
    """Format one argument as `name: type = default`."""
    kind = f": {ast.unparse(item.annotation).strip(chr(39))}" if item.annotation else ""
    return item.arg + kind + ("" if default is None else f" = {ast.unparse(default)}")


def wrap_arguments(name: str, arguments: list[str], result: str) -> str:
    """Join a signature, with one argument per line if it is long."""
    line = f"{name}({', '.join(arguments)}){result}"
    return (
        line
        if len(line) <= MAX_WIDTH
        else f"{name}(\n" + "".join(f"    {item},\n" for item in arguments) + f"){result}"
    )


def list_fields(node: ast.ClassDef, source: Source) -> list[tuple[str, str]]:
    """List the public fields of a dataclass as `name: type = default`, with their comments."""
    if not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        return []
    items = []
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and not item.target.id.startswith("_"):
            value = ast.unparse(item.value) if item.value else ""
            if "init=False" in value:
                continue
            text = f"{item.target.id}: {ast.unparse(item.annotation)}".replace("'", "") + (
                f" = {value}" if value else ""
            )
            items.append((text, source.comments.get(item.lineno, "")))
    return items


def format_class(name: str, node: ast.ClassDef, source: Source) -> list[str]:
    """Format a class: signature, docstring, fields, methods."""
    doc, own = sections(ast.get_docstring(node) or ""), list_fields(node, source)
    methods = [item for item in node.body if isinstance(item, ast.FunctionDef)]
    init = next((item for item in methods if item.name == "__init__"), None)
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    if "Args" in doc and own:
        head = wrap_arguments(name, [field for field, _ in own], "")
    elif init:
        head = format_signature(name, init, method=True).removesuffix(" -> None")
    else:
        head = f"class {name}" + (f"({bases})" if bases else "")
    lines = [*code(head), "", doc[""]]
    if "Args" in doc:
        lines += ["", *bullets(doc["Args"])]
    elif own:
        lines += ["", *(f"- `{field}`" + (f": {comment}" if comment else "") for field, comment in own)]
    members = [item for item in methods if not item.name.startswith("_") or item.name == "__call__"]
    members += list_inherited(name, {item.name for item in methods}, source)
    if members:
        lines += ["", "Methods and properties:", "", *map(format_member, members)]
    return lines


def list_inherited(name: str, known: set[str], source: Source) -> list[ast.FunctionDef]:
    """Return the public methods that a class inherits from the views of results."""
    found = []
    for base in getattr(load_module(source.name), name).__mro__[1:]:
        if base.__module__ in VIEW_MODULES:
            _, node = find_definition(base.__module__, base.__name__)
            assert isinstance(node, ast.ClassDef)
            methods = [item for item in node.body if isinstance(item, ast.FunctionDef)]
            found += [item for item in methods if not item.name.startswith("_") and item.name not in known]
            known |= {item.name for item in methods}
    return found


def format_member(node: ast.FunctionDef) -> str:
    """Format a method or property as one list item."""
    decorators = {getattr(decorator, "id", "") for decorator in node.decorator_list}
    description = " ".join(sections(ast.get_docstring(node) or "")[""].split())
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    arguments = format_arguments(node.args)[0 if "staticmethod" in decorators else 1 :]
    text = node.name + ("" if "property" in decorators else f"({', '.join(arguments)})") + result
    return f"- `{text.replace(chr(39), '')}`" + (f": {description}" if description else "")


def code(text: str) -> list[str]:
    """Format a block of code."""
    return ["```text", *text.splitlines(), "```"]


def format_entry(module: str, name: str) -> list[str]:
    """Format one public name of a module, given by its public path."""
    home = load_module(module)
    source, node = find_definition(home.__name__, name)
    if isinstance(node, ast.ClassDef):
        return format_class(name, node, source)
    if isinstance(node, ast.FunctionDef):
        doc = sections(ast.get_docstring(node) or "")
        lines = [*code(format_signature(name, node)), "", doc[""]]
        if "Args" in doc:
            lines += ["", *bullets(doc["Args"])]
        if "Returns" in doc:
            lines += ["", "Returns: " + " ".join(doc["Returns"].split())]
        return lines
    value = getattr(home, name)
    if isinstance(value, dict):
        return [f"By short name: {', '.join(f'`{key}`' for key in value)}."]
    comment = source.comments.get(node.lineno, "")
    text = shorten(ast.unparse(node.value), 200) if node.value else ""
    return [f"`{text}`" + (f": {comment}" if comment else "")]


def public_names(module: str) -> list[str]:
    """List the public names of a module, without its modules, functions first."""
    home = load_module(module)
    names = [name for name in home.__all__ if not isinstance(getattr(home, name), ModuleType)]
    return sorted(names, key=lambda name: (name.isupper(), not name[0].isupper(), name))


def escape(line: str) -> str:
    """Escape stars and underscores outside of code."""
    parts = line.split("`")
    parts[::2] = [re.sub(r"([*_])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


def build_page() -> str:
    """Return the page."""
    lines = HEAD.splitlines()
    for heading, (module, description, names) in GROUPS.items():
        lines += ["", f"## {heading}", "", f"`{module}`: {description}."]
        for name in names or public_names(module):
            lines += ["", f"### `{module}.{name}`", "", *format_entry(module, name)]
    inside, text = False, []
    for line in lines:
        fence = line.startswith("```")
        text.append(line if inside or fence else escape(line))
        inside ^= fence
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(PAGE.read_text(encoding="utf-8") != build_page())
    PAGE.write_text(build_page(), encoding="utf-8")
