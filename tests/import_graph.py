"""Who imports whom in a package, read from its files: nothing of it is run."""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

BY_STRING = ("import_module", "__import__")
Graph = dict[str, set[str]]


def imported(node: ast.AST) -> list[str]:
    """What this statement may import: for ``from a import b``, ``a`` and ``a.b``."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        return [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


@dataclass(frozen=True)
class Module:
    name: str
    path: Path

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text())

    @cached_property
    def imports(self) -> set[str]:
        """At its top level or anywhere else."""
        return {name for node in ast.walk(self.tree) for name in imported(node)}

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        """Methods and nested functions, too."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node

    def hidden_imports(self) -> set[str]:
        """What functions import of the module's own package, when they are called."""
        package = self.name.partition(".")[0]
        found = {name for function in self.functions() for node in ast.walk(function) for name in imported(node)}
        return {name for name in found if name.partition(".")[0] == package}

    def imports_by_string(self) -> list[int]:
        """The lines that do."""
        calls = [node.func for node in ast.walk(self.tree) if isinstance(node, ast.Call)]
        return [call.lineno for call in calls if getattr(call, "attr", getattr(call, "id", "")) in BY_STRING]


def read_modules(package: Path) -> list[Module]:
    """The modules of the package in this folder, ordered by path."""
    modules = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        modules.append(Module(".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return modules


def graph(modules: Iterable[Module]) -> Graph:
    """Module → those of the others that it imports."""
    names = {module.name for module in modules}
    return {module.name: module.imports & names - {module.name} for module in modules}


def cycle(edges: Graph) -> list[str]:
    """The first one found, its beginning repeated at the end; [] when there is none."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module not in done:
            for other in sorted(edges[module]):
                if found := visit(other, [*path, module]):
                    return found
            done.add(module)
        return []

    return next(filter(None, (visit(module, []) for module in edges)), [])
