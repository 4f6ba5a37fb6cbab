"""The first cause that a log holds, in front of its end."""

from pathlib import Path

import pytest

from service.local.excerpts import HEAD, LINES, TAIL, excerpt

CUDA = 'E1126 11:54:36.820298 24348 server.cc:241] "CudaDriverHelper has not been initialized."\n'
SHUTDOWN = "".join(f'I1126 11:57:{second} 32428 server.cc:345] "Timeout"\n' for second in range(10, 30))
LOGS = {
    "triton, shared memory": (
        f"{CUDA}E1126 11:56:55.4 32428 backend_model.cc:692] "
        "\"ERROR: Failed to create instance: Unable to initialize shared memory key 'vqd_1_2_x'.\\n  No space\"\n"
        "E1126 11:56:55.4 32428 model_lifecycle.cc:642] \"failed to load 'image_decoder' version 1\"\n",
        "Failed to create instance: Unable to initialize shared memory key 'vqd_1_2_x'. No space",
    ),
    "triton, its Python": (
        f"{CUDA}I1126 11:54:51.2 24 pb_stub.cc:366]  Failed to initialize Python stub: ImportError: no numpy\n\nAt:\n",
        "ImportError: no numpy",
    ),
    "triton, its Python, in quotes": (
        'I1126 11:54:51.2 24 pb_stub.cc:366] "Failed to initialize Python stub: not a ZIP\\n\\nAt:\\n  a.py(1)"\n',
        "not a ZIP",
    ),
    "triton, where in the code": (
        'E1126 11:56:55.4 1 backend_model.cc:692] "ERROR: RuntimeError: broken\\n\\nAt:\\n  model.py(31)"\n',
        "RuntimeError: broken",
    ),
    "triton, an escape that is none": (
        'E1126 11:56:55.4 1 a.cc:692] "bad escape \\x41"\n',
        "bad escape \\x41",
    ),
    "its C++": ("terminate called after throwing 'std::invalid_argument'\n  what():  stol\n", "stol"),
    "the loader": (
        "/x/tritonserver: error while loading shared libraries: libz.so: cannot open\n",
        "/x/tritonserver: error while loading shared libraries: libz.so: cannot open",
    ),
    "a shell": ("bash: line 1: ./a: No such file or directory\n", "bash: line 1: ./a: No such file or directory"),
    "redis": (
        "1:C 26 Nov 2026 12:00:08.262 # oO0OoO0OoO0Oo Redis is starting oO0OoO0OoO0Oo\n"
        "1:M 26 Nov 2026 12:00:08.262 # WARNING Memory overcommit must be enabled!\n"
        "1:M 26 Nov 2026 12:00:32.626 # Can't open the append-only file: Is a directory\n",
        "Can't open the append-only file: Is a directory",
    ),
    "redis, an option": (
        "*** FATAL CONFIG FILE ERROR (Redis 6.2.14) ***\n>>> 'port \"x\"'\nInvalid port\n",
        "'port \"x\"'",
    ),
    "a command": (
        "vqd: note: VQD_PROT is no setting and does nothing\nvqd: VQD_PORT=x: no number\n",
        "VQD_PORT=x: no number",
    ),
    "a traceback": (
        "Traceback (most recent call last):\n  File x, line 3\nImportError: cannot import name 'LogFormat'\n",
        "ImportError: cannot import name 'LogFormat'",
    ),
    "our log as text": (
        "2026-11-26T11:00:00.000Z INFO service.a: starts\n2026-11-26T11:00:00.001Z ERROR service.b: not ready: why\n",
        "not ready: why",
    ),
    "our log as JSON": (
        '{"ts": "2026", "level": "ERROR", "logger": "service.b", "message": "no \\"x\\" there", "job_id": "1"}\n',
        'no "x" there',
    ),
}


@pytest.mark.parametrize(("said", "cause"), LOGS.values(), ids=LOGS.keys())
def test_the_first_cause_is_in_front(said: str, cause: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(said + SHUTDOWN)
    shown = excerpt(log)
    assert shown.startswith(f": {cause}; the end of {log}:\n")
    assert shown.endswith("\n".join(SHUTDOWN.splitlines()[-LINES:]))


def test_a_log_without_a_cause_is_shown_from_its_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(CUDA + SHUTDOWN)
    assert excerpt(log).startswith(f"; the end of {log}:\nI1126 11:57:15")


def test_what_an_earlier_process_said_does_not_count(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("vqd: an old mistake\n" + SHUTDOWN)
    begins = log.stat().st_size
    with log.open("a") as file:
        file.write("vqd: a new mistake\n")
    assert excerpt(log, begins) == f": a new mistake; the end of {log}:\nvqd: a new mistake"


def test_a_log_may_be_large(tmp_path: Path) -> None:
    """Larger than what is read of it; the first cause is at its beginning."""
    log = tmp_path / "log"
    with log.open("wb") as file:
        file.write(b"vqd: it began so\n")
        file.seek(2 * (HEAD + TAIL))
        file.write(b"\nit ended so\n")
    shown = excerpt(log)
    assert shown.startswith(": it began so; ")
    assert shown.endswith("\nit ended so")
    assert len(shown) < 2 * TAIL


def test_a_log_that_is_gone_is_said(tmp_path: Path) -> None:
    assert excerpt(tmp_path / "log") == f"; {tmp_path / 'log'} cannot be read: No such file or directory"
