"""The figures of the house, each beside its bound: ``make house``. Ends with status 1 when one is broken."""

import ast
import io
import math
import re
import statistics
import sys
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from import_graph import Module, cycle, graph, read_modules

ROOT = Path(__file__).parents[1]
LOADER = "service.cli.app"
"""The one module that imports by string: a command group is loaded when it is called."""
REPLACING = ("setattr", "delattr", "setitem", "delitem")
SHOWN = 3
"""How many of the largest files and functions are named when none is too large."""
Place = tuple[int, str]
"""A size and where it is."""


@dataclass(frozen=True)
class Figure:
    name: str
    value: float
    bound: float
    worst: Sequence[str] = ()
    at_least: bool = False

    @property
    def holds(self) -> bool:
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def __str__(self) -> str:
        verdict, sign = "ok" if self.holds else "BROKEN", "≥" if self.at_least else "≤"
        line = f"{verdict:7} {self.name:36} {self.value:8.5g} {sign} {self.bound:<6.5g} {', '.join(self.worst)}"
        return line.rstrip()


def count(name: str, places: Sequence[str], bound: int = 0) -> Figure:
    return Figure(name, len(places), bound, places)


def figures(root: Path) -> Iterator[Figure]:
    modules, tests = read_modules(root / "service"), sorted((root / "tests").rglob("*.py"))
    paths = {module.name: str(module.path.relative_to(root)) for module in modules}
    yield from file_lengths([(lines(module.path), paths[module.name]) for module in modules])
    yield from function_lengths(
        [
            (function.end_lineno - function.lineno + 1, f"{paths[module.name]}:{function.lineno} {function.name}")
            for module in modules
            for function in module.functions()
            if function.end_lineno
        ]
    )
    yield count("mocks", [f"{path.relative_to(root)}:{line}" for path in tests for line in mocks(path)], bound=5)
    code, tested = sum(lines(module.path) for module in modules), sum(map(lines, tests))
    yield Figure("lines of tests per line of code", tested / code, 1, at_least=True)
    found = cycle(graph(modules))
    yield Figure("import cycles", int(bool(found)), 0, [" → ".join(found)] if found else [])
    yield count(
        "imports of ours inside a function",
        [f"{paths[module.name]} {name}" for module in modules for name in sorted(module.hidden_imports())],
    )
    yield count(
        "imports by string",
        [f"{paths[m.name]}:{line}" for m in modules if m.name != LOADER for line in m.imports_by_string()],
    )
    yield count(
        "`except Exception` without a reason", [f"{paths[m.name]}:{line}" for m in modules for line in unexplained(m)]
    )
    yield Figure("words of the README (goal: 1,500)", len((root / "README.md").read_text().split()), 1600)


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def largest(places: Sequence[Place], size: int) -> list[str]:
    """Those above ``size``, or else the few largest; largest first."""
    ordered = sorted(places, key=lambda place: -place[0])
    above = sum(place[0] > size for place in places)
    return [f"{where} ({length})" for length, where in ordered[: max(above, SHOWN)]]


def file_lengths(files: Sequence[Place]) -> Iterator[Figure]:
    yield Figure("lines of a file, median", statistics.median(length for length, _ in files), 120)
    yield Figure("lines of a file, most", max(files)[0], 300, largest(files, 300))


def function_lengths(functions: Sequence[Place]) -> Iterator[Figure]:
    ordered = sorted(length for length, _ in functions)
    yield Figure("lines of a function, median", statistics.median(ordered), 10)
    yield Figure("lines of a function, 90th percentile", ordered[math.ceil(0.9 * len(ordered)) - 1], 30)
    yield Figure("lines of a function, most", ordered[-1], 50, largest(functions, 50))


def mocks(path: Path) -> list[int]:
    """Lines that use a mock, or put something in the place of our own code for a while.

    What comes from another package (``sys``, ``torch``) and the environment are not ours.
    """
    tree = ast.parse(path.read_text())
    origin: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            origin |= {alias.asname or alias.name.partition(".")[0]: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return sorted({node.lineno for node in ast.walk(tree) if replaces(node, origin)})  # type: ignore[attr-defined]


def replaces(node: ast.AST, origin: dict[str, str]) -> bool:
    """``origin``: where the file's names were imported from; any other name may hold a thing of ours."""
    match node:
        case ast.Name(name):
            return name == "mocker" or re.match(r"(unittest\.)?mock\b", origin.get(name, "")) is not None
        case ast.Call(ast.Attribute(ast.Name("monkeypatch"), method), [ast.Constant(str(target)), *_]):
            return method in REPLACING and target.startswith("service.")
        case ast.Call(ast.Attribute(ast.Name("monkeypatch"), method), [target, *_]):
            while isinstance(target, ast.Attribute):
                target = target.value
            name = target.id if isinstance(target, ast.Name) else ""
            return method in REPLACING and origin.get(name, "service").startswith("service")
    return False


def unexplained(module: Module) -> list[int]:
    """Lines that catch everything, with no comment beside or above that says why."""
    source = io.StringIO(module.path.read_text())
    comments = {token.start[0]: token.string for token in tokenize.generate_tokens(source.readline) if is_reason(token)}
    handlers = [node for node in ast.walk(module.tree) if isinstance(node, ast.ExceptHandler) and catches_all(node)]
    return [handler.lineno for handler in handlers if not comments.keys() & {handler.lineno, handler.lineno - 1}]


def is_reason(token: tokenize.TokenInfo) -> bool:
    """Whether it is a comment with words, and not for a linter alone."""
    return (
        token.type == tokenize.COMMENT and re.sub(r"# *(noqa|type: *ignore)\S*( [A-Z]+\d+,?)*", "", token.string) != ""
    )


def catches_all(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    return any(isinstance(node, ast.Name) and node.id == "Exception" for node in ast.walk(handler.type))


def main(root: Path) -> int:
    found = list(figures(root))
    print(*found, sep="\n")
    return int(not all(figure.holds for figure in found))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if sys.argv[1:] else ROOT))
