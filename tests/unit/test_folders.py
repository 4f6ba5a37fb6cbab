"""Folders that somebody names: what cannot be written is said in one line, and two processes never share one."""

import os
from pathlib import Path

import pytest

from service.errors import SetupError
from service.folders import held, holder, require_writable


def test_a_folder_is_tried_and_not_made(tmp_path: Path) -> None:
    require_writable(tmp_path / "new/and/deep")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", ["/proc/x", "/proc/x/y", "/dev/null", "/dev/null/x"])
def test_what_cannot_be_written_is_named_with_the_reason(folder: str) -> None:
    for attempt in (lambda: require_writable(Path(folder)), lambda: held(Path(folder), "").__enter__()):
        with pytest.raises(SetupError, match=rf"^cannot write to {folder}(/\.in-use)?: [A-Z][a-z ]+$"):
            attempt()


def test_a_link_to_nowhere_is_no_folder(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("nowhere")
    with pytest.raises(SetupError, match=rf"^cannot write to {link}: No such file or directory$"):
        require_writable(link)


def test_a_held_folder_names_its_holder_until_it_is_let_go(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert holder(folder) is None
    for _ in range(2):
        with held(folder, "choose another"):
            assert holder(folder) == str(os.getpid())
            with (
                pytest.raises(SetupError, match=rf"^{folder} is in use by process {os.getpid()}; choose another$"),
                held(folder, "choose another"),
            ):
                raise AssertionError
        assert holder(folder) is None
