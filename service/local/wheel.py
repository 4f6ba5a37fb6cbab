"""The Triton that the nvidia-pytriton wheel carries: where its parts are, and what they have to be told."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from service.errors import SetupError
from service.local.links import Links

INSTALL_HINT = "`pip install 'vqd[local]'`"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class TritonInstall:
    """``stub``: the program that embeds Python; ``packages``, ``libraries``: folders that it needs; ``home``: where
    the Python is that our virtual environment is made of."""

    binary: Path
    backend: Path
    stub: Path
    packages: tuple[Path, ...]
    libraries: tuple[Path, ...]
    home: Path

    def environment(self, links: Links) -> dict[str, str]:
        """Of our virtual environment the stub knows only what is said here.

        It takes the standard library that lies beside the first ``python3`` on PATH, whatever else it is told.
        """
        python = links.link("bin/python3", links.plain(self.home) / "bin" / f"python{PYTHON}")
        return {
            "PATH": path_list([python.parent], os.environ.get("PATH", os.defpath)),
            "PYTHONPATH": path_list([links.plain(folder) for folder in self.packages]),
            "LD_LIBRARY_PATH": path_list(
                [links.plain(folder) for folder in self.libraries], os.environ.get("LD_LIBRARY_PATH")
            ),
        }


def path_list(folders: Sequence[Path], rest: str | None = None) -> str:
    return os.pathsep.join([*map(str, folders), *filter(None, [rest])])


def find_triton() -> TritonInstall:
    """Raises SetupError when a part is missing."""
    root = package_folder("pytriton") / "tritonserver"
    wheel, home = root.parent.parent, Path(sys.base_prefix)
    install = TritonInstall(
        binary=root / "bin/tritonserver",
        backend=root / "backends/python",
        stub=root / "python_backend_stubs" / PYTHON / "triton_python_backend_stub",
        packages=tuple(dict.fromkeys([package_folder("torch").parent, wheel])),
        libraries=(wheel / "nvidia_pytriton.libs", *python_libraries(home)),
        home=home,
    )
    for path in (install.binary, install.backend / "libtriton_python.so", install.stub):
        if not path.exists():
            raise SetupError(f"the nvidia-pytriton wheel has no {path}; Python {PYTHON} may be unsupported by it")
    if missing := missing_libraries(install):
        hint = f"for libpython: `apt install libpython{PYTHON}`"
        raise SetupError(f"Triton's Python stub needs {', '.join(missing)}; {hint}")
    if shutil.which("bash") is None:
        raise SetupError("Triton starts its Python with bash, which is not on PATH")
    return install


def package_folder(name: str) -> Path:
    """Found without importing it."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SetupError(f"the package {name!r} is not installed: {INSTALL_HINT}")
    return Path(spec.submodule_search_locations[0]).absolute()


def python_libraries(home: Path) -> list[Path]:
    """Where our own Python's libpython is, if there is a shared one: it comes before the system's.

    A Python that was moved since it was built, as uv's was, names another place than its own.
    """
    folders = [home / "lib", Path(sysconfig.get_config_var("LIBDIR") or home)]
    return [folder for folder in folders if any(folder.glob(f"libpython{PYTHON}*.so*"))]


def missing_libraries(install: TritonInstall) -> list[str]:
    """Shared libraries of the stub that the loader does not find; [] where there is no ldd to ask."""
    ldd = shutil.which("ldd")
    if ldd is None:
        return []
    environment: Mapping[str, str] = {
        **os.environ,
        "LD_LIBRARY_PATH": path_list(install.libraries, os.environ.get("LD_LIBRARY_PATH")),
    }
    output = subprocess.run([ldd, install.stub], env=environment, capture_output=True, check=False).stdout
    return re.findall(r"(\S+) => not found", output.decode(errors="replace"))
