"""Structure of the source tree: sizes, import depth, import cycles, and the naming rules of CONTRIBUTING.md, counted.

Use: python benchmarks/structure.py [ROOT] [--list] [--json]

Reads the files of ROOT (by default this checkout) without importing them. `--list` adds every place that was counted.

Rules, where a number depends on one:

- depth: imports one after another on the longest chain, a cycle being one link: of those at module level only, with
  those inside functions, and with those under `if TYPE_CHECKING:` too. All else about imports counts those at module
  level and inside functions. Names that are loaded lazily from a text or a stub are not seen.
- participle: the first or last word of a function's name is an irregular participle of `IRREGULAR` or ends in `-ed`
  (without `NOT_PARTICIPLES`); last words after a verb of `VERBS` are not (`check_installed`). Violations are those that
  are no property, no predicate (returns bool, or `is_`, `has_`, …) and no context manager.
- bare constant: each word of a module-level uppercase name is in `QUANTIFIERS`, in `ADJECTIVES` or a participle.
  Constants whose value is their own name (`FAILED = "failed"`) are listed apart and not in the sum.
- option list: a signature, the fields of a class or a literal with at least five names of `OPTIONS` is declared; the
  arguments of a call with as many are passed on.
"""

import argparse
import ast
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

MAX_SOURCE_LINES, MAX_TEST_LINES, MAX_FUNCTION_LINES = 300, 400, 50
MIN_OPTIONS = 5

Function = ast.FunctionDef | ast.AsyncFunctionDef
Graph = dict[str, set[str]]


def split_words(text: str) -> frozenset[str]:
    """Return the words of a text as a set."""
    return frozenset(text.split())


OPTIONS = split_words("areas game perturbation solver score within units alternatives seed")
IRREGULAR = split_words(
    "been begun bound broken built caught chosen done drawn driven fed felt found frozen given gone grown heard held "
    "hidden kept known laid led left lost made meant met paid rebuilt said seen sent shown spent stood taken taught "
    "thrown told unbroken understood unseen withheld won worn written"
)  # without words that are also the verb: cut, let, put, read, run, set, split, spread
NOT_PARTICIPLES = split_words("bed embed exceed feed hundred indeed need proceed red seed shed speed succeed")
VERBS = split_words(
    "add build check clear collect count create drop explain filter find get keep list load mark parse print read "
    "refuse remove report return run select skip validate warn write"
)
PREDICATES = ("is_", "has_", "can_", "needs_", "depends_", "should_", "are_", "was_")
QUANTIFIERS = split_words(
    "ACROSS AGAIN AHEAD ALL ALONE ANY APART AROUND ASIDE BESIDE BEYOND BOTH EACH EITHER ELSEWHERE ENOUGH EVERY FEW "
    "HIGHEST LAST LEAST LESS LOWEST MANY MAX MIN MORE MOST NEITHER NONE NOTHING ONLY OTHER OURS OUT OWN PER REST SOME "
    "SUCH THERE TOGETHER TOP UP WHAT"
)
ADJECTIVES = split_words(
    "BIG CLEAR CLOSE COARSE COMMON DENSE EQUAL FAR FINE GREAT HIGH ILL LARGE LIKE LONG LOW NEAR OPAQUE OPEN PALE PLAIN "
    "QUIET RANDOM SAFE SAME SHORT SMALL SMOOTH SPARE SURE TELLING TINY"
)


@dataclass(frozen=True)
class SourceFile:
    """A Python file: where it is, its dotted name and its text."""

    path: Path  # relative to the root
    module: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return ast.parse(self.text)

    @cached_property
    def size(self) -> int:
        """Number of lines."""
        return len(self.text.splitlines())

    def locate(self, node: ast.AST) -> str:
        """Path and line of a node."""
        return f"{self.path}:{getattr(node, 'lineno', 1)}"


def main() -> None:
    """Print the table or the JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).resolve().parents[1])
    parser.add_argument("--list", action="store_true", help="print every place counted")
    parser.add_argument("--json", action="store_true", help="print one JSON document, with every place")
    arguments = parser.parse_args()
    results = measure_tree(arguments.root)
    if arguments.json:
        print(json.dumps(results, indent=1, ensure_ascii=False))
        return
    width = max(map(len, results))
    for name, result in results.items():
        places = result["places"]
        print(f"{name:<{width}}  {result['value']!s:>6}  {places[0] if places else ''}")
        for place in places[1:] if arguments.list else []:
            print(f"{'':{width + 10}}{place}")


def measure_tree(root: Path) -> dict[str, dict[str, Any]]:
    """Return each measure's value and places, by its name."""
    source, tests, benchmarks = (read_files(root, folder) for folder in ("src", "tests", "benchmarks"))
    measures: dict[str, tuple[Any, list[str]]] = {}
    measures |= measure_root(root / "src" / "extremal")
    measures |= measure_sizes(source, tests, benchmarks)
    measures |= measure_imports(source)
    measures |= measure_functions(source)
    measures |= measure_constants(source)
    copies = [place for file in source for place in find_option_lists(file)]
    declared = [f"{place} [{kind}]" for kind, place in copies if kind != "call"]
    passed_on = [place for kind, place in copies if kind == "call"]
    measures["option lists: declared"] = len(declared), declared
    measures["option lists: passed on"] = len(passed_on), passed_on
    repeated = find_repeated_classes(source)
    measures["class names in several modules"] = len(repeated), repeated
    return {name: {"value": value, "places": places} for name, (value, places) in measures.items()}


def read_files(root: Path, folder: str) -> list[SourceFile]:
    """Read all Python files of a folder, in order."""
    files = []
    for path in sorted((root / folder).rglob("*.py")):
        parts = path.relative_to(root / folder).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        files.append(SourceFile(path.relative_to(root), module, path.read_text(encoding="utf-8")))
    return files


def measure_root(package: Path) -> dict[str, tuple[int, list[str]]]:
    """Count the entries of the package's own folder."""
    entries = [path for path in sorted(package.iterdir()) if path.name != "__pycache__"]
    packages = [path.name for path in entries if path.is_dir()]
    modules = [path.name for path in entries if path.suffix == ".py"]
    others = [path.name for path in entries if path.is_file() and path.suffix != ".py"]
    public = [*packages, *(name for name in modules if not name.startswith("_"))]
    return {
        "root: packages and modules": (len(packages) + len(modules), []),
        "root: without _names": (len(public), [" ".join(public)]),
        "root: packages": (len(packages), [" ".join(packages)]),
        "root: modules": (len(modules), [" ".join(modules)]),
        "root: other files": (len(others), [" ".join(others)]),
    }


def measure_sizes(*parts: list[SourceFile]) -> dict[str, tuple[int, list[str]]]:
    """Count files and lines of source, tests and benchmarks, and the long files among them."""
    measures: dict[str, tuple[int, list[str]]] = {}
    limits = (MAX_SOURCE_LINES, MAX_TEST_LINES, MAX_TEST_LINES)
    for name, files, limit in zip(("src", "tests", "benchmarks"), parts, limits, strict=True):
        by_size = sorted(files, key=lambda file: -file.size)
        measures[f"{name}: files"] = len(files), []
        measures[f"{name}: lines"] = sum(file.size for file in files), []
        measures[f"{name}: longest file"] = by_size[0].size, [f"{file.path} {file.size}" for file in by_size[:5]]
        long = [f"{file.path} {file.size}" for file in by_size if file.size > limit]
        measures[f"{name}: files over {limit} lines"] = len(long), long
    return measures


def measure_imports(source: list[SourceFile]) -> dict[str, tuple[int, list[str]]]:
    """Measure the import graph: depth, and cycles between files and between folders."""
    at_module_level = build_import_graph(source, functions=False)
    graph = build_import_graph(source)
    with_typing = build_import_graph(source, typing=True)
    measures: dict[str, tuple[int, list[str]]] = {"imports: edges": (sum(map(len, graph.values())), [])}
    for label, edges in (("module level", at_module_level), ("functions too", graph), ("typing too", with_typing)):
        chain = find_longest_chain(edges)
        measures[f"imports: depth, {label}"] = len(chain) - 1, [" > ".join(chain)]
        cycles = [" <-> ".join(cycle) for cycle in find_cycles(edges)]
        measures[f"imports: file cycles, {label}"] = len(cycles), cycles
    groups, pairs = find_folder_cycles(graph)
    measures["imports: folder cycles, groups"] = len(groups), groups
    measures["imports: folder cycles, pairs"] = len(pairs), pairs
    return measures


def build_import_graph(source: list[SourceFile], *, functions: bool = True, typing: bool = False) -> Graph:
    """Return the modules that each module imports; on request with imports inside functions, or for typing only."""
    modules = {file.module for file in source}
    graph: Graph = {}
    for file in source:
        package = file.module if file.path.name == "__init__.py" else file.module.rpartition(".")[0]
        nodes = walk_imports(file.tree, functions=functions, typing=typing)
        names = {name for node in nodes for name in resolve_import(node, package)}
        # `from extremal.games import delete` names `extremal.games.delete`, which is no module: its parent is meant.
        targets = {name if name in modules else name.rpartition(".")[0] for name in names}
        graph[file.module] = (targets & modules) - {file.module}
    return graph


def walk_imports(node: ast.AST, *, functions: bool, typing: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the import statements under a node."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node
        return
    if isinstance(node, Function) and not functions:
        return
    children = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and not typing and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        children = iter(node.orelse)
    for child in children:
        yield from walk_imports(child, functions=functions, typing=typing)


def resolve_import(node: ast.Import | ast.ImportFrom, package: str) -> Iterator[str]:
    """Yield the absolute dotted names that a statement imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    base = ".".join([*parents, *([node.module] if node.module else [])])
    yield from (f"{base}.{alias.name}" for alias in node.names)


def find_reachable(graph: Graph, start: str) -> set[str]:
    """Return all nodes that can be reached from one, itself only by a cycle."""
    reached: set[str] = set()
    pending = [start]
    while pending:
        new = graph.get(pending.pop(), set()) - reached
        reached |= new
        pending += new
    return reached


def find_cycles(graph: Graph) -> list[list[str]]:
    """Return the strongly connected components of more than one node."""
    reachable = {node: find_reachable(graph, node) for node in graph}
    components = {frozenset(b for b in graph if b in reachable[a] and a in reachable[b]) for a in graph}
    return sorted(sorted(component) for component in components if len(component) > 1)


def find_longest_chain(graph: Graph) -> list[str]:
    """Return the longest chain of imports from top to bottom; a cycle is one link."""
    links = {node: node for node in graph}
    for cycle in find_cycles(graph):
        links |= dict.fromkeys(cycle, " = ".join(cycle))
    condensed: Graph = defaultdict(set)
    for node, targets in graph.items():
        condensed[links[node]] |= {links[target] for target in targets} - {links[node]}
    chains: dict[str, list[str]] = {}

    def follow(node: str) -> list[str]:
        if node not in chains:
            below = [follow(target) for target in sorted(condensed[node])]
            chains[node] = [node, *max(below, key=len, default=[])]
        return chains[node]

    return max((follow(node) for node in sorted(links.values())), key=len)


def build_folder_graphs(graph: Graph) -> dict[str, Graph]:
    """Return for each package the imports between its direct members, a package below being one member."""
    folders: dict[str, Graph] = defaultdict(lambda: defaultdict(set))
    for module, targets in graph.items():
        for target in targets:
            ours, theirs = module.split("."), target.split(".")
            shared = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), 0)
            if shared:  # otherwise one is the package of the other, which `file cycles` sees
                members = folders[".".join(ours[:shared])]
                members[ours[shared]].add(theirs[shared])
                members.setdefault(theirs[shared], set())
    return folders


def find_folder_cycles(graph: Graph) -> tuple[list[str], list[str]]:
    """Return the cycles between members of a package, and the pairs in them; one member at least is a package."""
    packages = {module.rpartition(".")[0] for module in graph}
    groups, pairs = [], []
    for package, members in sorted(build_folder_graphs(graph).items()):
        for cycle in find_cycles(members):
            folders = {member for member in cycle if f"{package}.{member}" in packages}
            if folders:
                groups.append(f"{package}: {' <-> '.join(cycle)}")
            mutual = [(a, b) for a, b in combinations(cycle, 2) if b in members[a] and a in members[b]]
            pairs += [f"{package}: {a} <-> {b}" for a, b in mutual if folders & {a, b}]
    return groups, pairs


def measure_functions(source: list[SourceFile]) -> dict[str, tuple[Any, list[str]]]:
    """Measure lengths and names of functions, methods and nested functions included."""
    functions = [(file, node) for file in source for node in ast.walk(file.tree) if isinstance(node, Function)]
    entered = find_entered(source)
    lengths = sorted(((count_lines(node), file.locate(node), node.name) for file, node in functions), reverse=True)
    long = [f"{place} {name} {length}" for length, place, name in lengths if length > MAX_FUNCTION_LINES]
    named = [(file, node) for file, node in functions if is_participle_name(node.name)]
    violations = [(file, node) for file, node in named if not is_exempt(node, entered)]
    share = f"{len(violations) / len(functions):.1%}"
    return {
        "functions": (len(functions), []),
        "functions: longest": (lengths[0][0], [f"{place} {name} {length}" for length, place, name in lengths[:5]]),
        f"functions over {MAX_FUNCTION_LINES} lines": (len(long), long),
        "participles: all": (len(named), [f"{file.locate(node)} {node.name}" for file, node in named]),
        "participles: violations": (len(violations), [f"{file.locate(node)} {node.name}" for file, node in violations]),
        "participles: violations, share": (share, []),
    }


def count_lines(node: Function) -> int:
    """Count the lines of a function from its `def` on."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def is_participle(word: str) -> bool:
    """Whether a lowercase word is a past participle."""
    return word in IRREGULAR or (word.endswith("ed") and word not in NOT_PARTICIPLES)


def is_participle_name(name: str) -> bool:
    """Whether a function is named by a past participle."""
    if name.startswith("__"):
        return False
    first, *others = name.strip("_").split("_")
    return is_participle(first) or bool(others and is_participle(others[-1]) and first not in VERBS)


def is_exempt(node: Function, entered: set[str]) -> bool:
    """Whether a function may be named by a participle: properties, predicates and context managers."""
    decorators = {ast.unparse(decorator).split("(")[0].rpartition(".")[2] for decorator in node.decorator_list}
    if decorators & {"property", "cached_property", "setter", "contextmanager", "asynccontextmanager"}:
        return True
    returns = ast.unparse(node.returns).strip("'\"") if node.returns else ""
    if returns == "bool" or returns.startswith(("TypeGuard", "TypeIs")) or node.name.strip("_").startswith(PREDICATES):
        return True
    return "ContextManager" in returns or (node.name in entered and returns.startswith(("Iterator", "Generator")))


def find_entered(source: list[SourceFile]) -> set[str]:
    """Return the names of the functions called in `with` statements."""
    items = (node.context_expr for file in source for node in ast.walk(file.tree) if isinstance(node, ast.withitem))
    return {ast.unparse(item.func).rpartition(".")[2] for item in items if isinstance(item, ast.Call)}


def measure_constants(source: list[SourceFile]) -> dict[str, tuple[int, list[str]]]:
    """Count module-level constants, and those whose names have no noun."""
    constants = [(file, *constant) for file in source for constant in walk_constants(file.tree)]
    kinds: dict[str, list[str]] = {"quantifiers": [], "adjectives, participles": [], "own value, not in sum": []}
    for file, name, value in constants:
        words = name.id.strip("_").split("_")
        if all(word in QUANTIFIERS | ADJECTIVES or is_participle(word.lower()) for word in words):
            own_value = isinstance(value, ast.Constant) and value.value == " ".join(words).lower()
            kind = "quantifiers" if QUANTIFIERS.issuperset(words) else "adjectives, participles"
            kinds["own value, not in sum" if own_value else kind].append(f"{file.locate(name)} {name.id}")
    bare = kinds["quantifiers"] + kinds["adjectives, participles"]
    measures = {f"bare constants: {kind}": (len(places), places) for kind, places in kinds.items()}
    return {"constants": (len(constants), []), "bare constants": (len(bare), bare), **measures}


def walk_constants(tree: ast.Module) -> Iterator[tuple[ast.Name, ast.expr | None]]:
    """Yield the uppercase names that a module assigns at its top level, each with its value."""
    for node in tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            names = target.elts if isinstance(target, ast.Tuple) else [target]
            values = node.value.elts if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple) else []
            for index, name in enumerate(names):
                if isinstance(name, ast.Name) and name.id.isupper():
                    yield name, values[index] if values else node.value


def find_option_lists(file: SourceFile) -> Iterator[tuple[str, str]]:
    """Yield kind and place of everything in a file that names at least five options."""
    counted: set[ast.AST] = set()  # literals inside a larger one, or spread into a call, are part of it
    for node in ast.walk(file.tree):
        kind, names = list_names(node)
        common = OPTIONS.intersection(names)
        if len(common) >= MIN_OPTIONS and node not in counted:
            counted.update(child for child in ast.walk(node) if isinstance(child, ast.Tuple | ast.List | ast.Set))
            label = getattr(node, "name", "") or (ast.unparse(node.func) if isinstance(node, ast.Call) else "")
            yield kind, f"{file.locate(node)} {label} ({len(common)})".replace("  ", " ")


def list_names(node: ast.AST) -> tuple[str, list[str]]:
    """Return what kind of list a node may be, and the names in it."""
    if isinstance(node, Function):
        return "signature", [one.arg for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    if isinstance(node, ast.ClassDef):
        return "class", [ast.unparse(line.target) for line in node.body if isinstance(line, ast.AnnAssign)]
    if isinstance(node, ast.Call):
        keywords = [keyword.arg for keyword in node.keywords if keyword.arg]
        return "call", [*keywords, *name_elements(node.args)]
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return "literal", name_elements(node.elts)
    if isinstance(node, ast.Dict):
        return "literal", name_elements(key for key in node.keys if key)
    return "", []


def name_elements(elements: Iterable[ast.expr]) -> list[str]:
    """Return the texts, variables and attributes among some expressions by name, spread tuples included."""
    names = []
    for element in elements:
        match element:
            case ast.Constant(value=str() as name) | ast.Name(id=name) | ast.Attribute(attr=name):
                names.append(name)
            case ast.Starred(value=ast.Tuple(elts=inner) | ast.List(elts=inner)):
                names += name_elements(inner)
    return names


def find_repeated_classes(source: list[SourceFile]) -> list[str]:
    """Return the names of top-level classes that stand in more than one module."""
    places: dict[str, list[str]] = defaultdict(list)
    for file in source:
        for node in file.tree.body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(file.locate(node))
    return [f"{name}: {' '.join(found)}" for name, found in sorted(places.items()) if len(found) > 1]


if __name__ == "__main__":
    main()
