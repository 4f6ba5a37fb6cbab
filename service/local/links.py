"""Names that need no quoting, for paths that do."""

import re
from pathlib import Path

PLAIN = re.compile(r"[\w./+@%=,-]+", re.ASCII)


class Links:
    """Links in ``folder``, whose own path is plain, to whatever path is not.

    Triton hands paths to a shell without quotes, its Python takes file names for ASCII, and a list of folders cannot
    hold one with a colon.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def plain(self, path: Path) -> Path:
        """A plain path to the same place."""
        path = path.absolute()
        return path if PLAIN.fullmatch(str(path)) else self.link(str(len(list(self.folder.iterdir()))), path)

    def link(self, name: str, path: Path) -> Path:
        link = self.folder / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
        return link
