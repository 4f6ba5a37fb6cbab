"""The figures of the house hold here, and a tree that breaks one is told so."""

from pathlib import Path

import pytest
from house import ROOT, figures, main


def function(size: int, name: str = "f") -> str:
    return f"def {name}() -> None:\n" + "    pass\n" * (size - 1)


def catching(line: str, above: str = "") -> str:
    return f"try:\n    pass\n{above}{line}\n    pass\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small one in which all figures hold, some of them just so."""
    files = {
        "service/__init__.py": "",
        "service/long.py": "\n" * 300,
        "service/functions.py": function(50) + "".join(function(10, f"f{i}") for i in range(10)),
        "service/caught.py": catching("except Exception:  # noqa: BLE001  for a reason")
        + catching("except:", above="# for a reason\n")
        + catching("except (OSError, ValueError):"),
        "service/first.py": "import os\nimport service.second\n",
        "service/second.py": "from service import long\n\n\ndef f() -> None:\n    import os\n",
        "service/cli/app.py": "from importlib import import_module\n\nimport_module('service.long')\n",
        "tests/unit/test_it.py": "\n" * 2000,
        "tests/unit/test_environment.py": "import sys\n"
        "monkeypatch.setenv('A', 'b')\nmonkeypatch.chdir('/')\nmonkeypatch.setattr(sys, 'path', [])\n",
        "README.md": "word " * 1600,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_figures_hold_here() -> None:
    assert [str(figure) for figure in figures(ROOT) if not figure.holds] == []


def test_a_tree_in_which_all_hold(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(tree) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    assert all(line.startswith("ok ") for line in lines)
    assert "≤ 300    service/long.py (300)" in lines[1]


REPLACEMENTS = (
    "from unittest import mock\nmock.patch('service.long')\n",
    "from unittest.mock import MagicMock\nMagicMock()\n",
    "import mock\nmock.Mock()\n",
    "mocker.patch('service.long')\n",
    "from service import long\nmonkeypatch.setattr(long, 'f', None)\n",
    "from service import long\nmonkeypatch.delattr(long.inner, 'f')\n",
    "monkeypatch.setattr('service.long.f', None)\n",
    "monkeypatch.setattr(a_fixture, 'f', None)\n",
    "monkeypatch.setitem(a_fixture.values, 'f', None)\n",
)


@pytest.mark.parametrize(
    ("name", "file", "text"),
    [
        ("lines of a file, median", "service/{}.py", "\n" * 121),
        ("lines of a file, most", "service/long.py", "\n" * 301),
        ("lines of a function, median", "service/functions.py", function(11, "f") * 3),
        ("lines of a function, 90th percentile", "service/functions.py", function(31) + function(10) * 7),
        ("lines of a function, most", "service/functions.py", function(51) + function(10) * 10),
        (
            "lines of a function, most",
            "service/functions.py",
            "def outer() -> None:\n" + "    async def inner() -> None:\n" + "        pass\n" * 49 + function(9) * 20,
        ),
        *(("mocks", "tests/unit/test_{}.py", text) for text in REPLACEMENTS),
        ("lines of tests per line of code", "tests/unit/test_it.py", "\n"),
        ("import cycles", "service/long.py", "from service.first import os\n"),
        ("imports of ours inside a function", "service/first.py", "def f() -> None:\n    import service.long\n"),
        (
            "imports of ours inside a function",
            "service/first.py",
            "async def f():\n    if 1:\n        from service import a\n",
        ),
        ("imports by string", "service/first.py", "import importlib\nimportlib.import_module('service.long')\n"),
        ("imports by string", "service/first.py", "__import__('service.long')\n"),
        ("`except Exception` without a reason", "service/caught.py", catching("except Exception:")),
        ("`except Exception` without a reason", "service/caught.py", catching("except (OSError, Exception) as e:")),
        ("`except Exception` without a reason", "service/caught.py", catching("except Exception:  # noqa: BLE001")),
        ("`except Exception` without a reason", "service/caught.py", catching("except:", above="    a = '#'\n")),
        ("words of the README (goal: 1,500)", "README.md", "word " * 1601),
    ],
)
def test_each_figure_can_break(name: str, file: str, text: str, tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(6 if "{}" in file else 1):
        (tree / file.format(number)).write_text(text)
    assert main(tree) == 1
    broken = [line for line in capsys.readouterr().out.splitlines() if line.startswith("BROKEN")]
    assert len(broken) == 1, broken
    assert f" {name} " in broken[0]
