"""An official checkpoint to a model folder: what ``vqd convert`` does."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from service.condition import Condition
from service.errors import SetupError
from service.folders import make_folder, require_writable
from service.models.convert.check import check_logits
from service.models.convert.papers import write_papers
from service.models.convert.parts import write_part
from service.models.convert.text import write_tokenizer
from service.models.convert.understanding import Options, understand


def convert(path: Path, to: Path, options: Options, bar: "tqdm[Any]") -> Iterator[str]:
    """Write the model folder ``to``, and tell what was found. Raises SetupError that names what is wrong.

    The folder appears when it is whole and its network has been compared with the checkpoint's.
    """
    to = to.absolute()
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise SetupError(f"{to} exists and is not an empty folder: name another one, or delete it")
    found = understand(path, options)
    yield str(found)
    with unfinished(to, found.size) as folder:
        write_papers(folder, found.network, options.name or path.stem, found.normalize, found.labels)
        if found.network.condition is Condition.TEXT:
            write_tokenizer(options.tokenizer, folder / "tokenizer", found.words, found.positions)
        network = found.parts[0]
        bar.reset(total=found.size + network.size)  # comparing reads it once more
        for part in found.parts:
            bar.set_description(f"writing {part.folder}")
            write_part(part, folder, path, bar.update)
        bar.set_description("comparing logits")
        one_block = partial(bar.update, network.size / found.network.num_layers)
        difference = check_logits(folder, network, path, found.network, one_block)
    yield f"{to}: written; its logits differ from the checkpoint's by {difference:.1e} at most"


@contextmanager
def unfinished(to: Path, size: int) -> Iterator[Path]:
    """A folder beside ``to`` that takes its name at the end, and goes when something went wrong. Raises SetupError."""
    folder = to.with_name(f".{to.name}.unfinished")
    require_writable(folder)
    shutil.rmtree(folder, ignore_errors=True)
    make_folder(folder)
    try:
        free = shutil.disk_usage(folder).free
        if free < size:
            raise SetupError(f"{to} needs {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free there")
        yield folder
        folder.replace(to)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
