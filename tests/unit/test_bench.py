"""The pure parts of the benchmarks, and that the flip count can find a flip."""

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tqdm import tqdm
from unit.model_folder import write_model

from service.diffusion.samplers import SAMPLERS
from service.engine.grid import tokens_sha256
from service.engine.row import Row
from service.errors import SetupError
from service.export.build import export_model
from service.lab.bench.bare import Bare, Wanted
from service.lab.bench.cases import Fields, mixed, plain
from service.lab.bench.flips import Flips, flips_of_modules, hashes_in_batches
from service.lab.bench.joining import Started, calls_until_first
from service.lab.bench.live import descendants, memory_of
from service.lab.bench.load import Reply, load_test, summary
from service.lab.bench.peer import Peer
from service.lab.bench.pictures import sheet_prompts, short
from service.lab.bench.report import Line, Report, cpu_model, show, table
from service.lab.bench.statistics import quantile, upper_bound
from service.lab.bench.together import Round, lines
from service.local.processes import end, spawn
from service.sockets import free_port


def test_quantiles_are_values_that_occurred() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert [quantile(values, q) for q in (0.0, 0.2, 0.21, 0.5, 0.99, 1.0)] == [1, 1, 2, 3, 5, 5]
    assert quantile([7.0], 0.5) == 7


@pytest.mark.parametrize(
    ("hits", "trials", "expected"),
    [(0, 500, 1 - 0.05 ** (1 / 500)), (1, 10, 0.394163), (5, 5, 1.0), (3, 1000, 0.007738)],
)
def test_the_upper_bound_is_clopper_pearsons(hits: int, trials: int, expected: float) -> None:
    """Beside the closed form for no hits: values of scipy.stats.beta.ppf(0.95, hits + 1, trials - hits)."""
    assert upper_bound(hits, trials) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("line", "value", "met"),
    [
        (Line("time", "ms", [40, 20, 25], 30), 25, True),
        (Line("time", "ms", [40, 20, 31], 30), 31, False),
        (Line("ratio", "", [0.9, 0.8, 0.86], 0.85, at_most=False), 0.86, True),
        (Line("ratio", "", [0.9, 0.8, 0.84], 0.85, at_most=False), 0.84, False),
        (Line("call", "", [1, 1, 3], 2, worst=True), 3, False),
        (Line("rate", "", [4, 2, 5], 3, at_most=False, worst=True), 2, False),
        (Line("flips", "of 500", [0], 0), 0, True),
        (Line("only told", "s", [1.5]), 1.5, None),
    ],
)
def test_a_line_is_judged_by_its_median_or_its_worst_run(line: Line, value: float, met: bool | None) -> None:
    assert (line.value, line.met) == (value, met)


def test_the_table_says_whether_each_bound_is_met() -> None:
    rows = table(
        [
            Line("Ready", "s", [10.04, 9.0, 30.0], 20),
            Line("Ratio", "", [0.5], 0.85, at_most=False),
            Line("Rate", "pictures/s", [123.4]),
        ]
    ).splitlines()
    assert rows[2:] == [
        "| Ready | 10 s | 9 … 30 (3) | ≤ 20 s | yes |",
        "| Ratio | 0.5 | 0.5 … 0.5 (1) | ≥ 0.85 | **no** |",
        "| Rate | 123 pictures/s | 123 … 123 (1) | — | — |",
    ]
    assert {row.count("|") for row in rows} == {6}


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (3.0, "3"), (0.12345, "0.123"), (1234.5, "1234"), (-2.34, "-2.34")]
)
def test_numbers_have_three_figures(value: float, text: str) -> None:
    assert show(value) == text


def test_the_json_holds_every_run_and_the_facts(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.json"
    printed = Report([Line("Größe", "s", [2.0, 1.0, 4.0], 3)], {"machine": {"cores": 2}}).published(path)
    assert printed.startswith("| What |")
    assert printed.endswith(str(path))
    record = json.loads(path.read_text())
    assert record["machine"] == {"cores": 2}
    assert record["lines"] == [
        {
            "what": "Größe",
            "unit": "s",
            "value": 2.0,
            "judged": "median",
            "values": [2.0, 1.0, 4.0],
            "bound": 3,
            "at_most": True,
            "met": True,
        }
    ]


def test_the_cpu_is_named() -> None:
    assert cpu_model("processor\t: 0\nmodel name\t: AMD EPYC: 7\n\nmodel name\t: other\n") == "AMD EPYC: 7"
    assert cpu_model("processor: 0\n")


def test_ratios_are_taken_within_a_round() -> None:
    """The second round ran on a machine twice as slow: no ratio moves, though batches of 16 were luckier there."""
    first = Round({1: 5.0, 8: 10.0, 16: 8.0}, 9.0, 8.0, 7.5, 2.5, 4.0)
    second = Round({1: 2.5, 8: 5.0, 16: 5.5}, 4.5, 4.0, 7.5, 1.25, 2.0)
    by_name = {line.what: line for line in lines([first, second])}
    assert by_name["8 requests at once ÷ bare loop at its best"].values == [0.9, 0.9]
    assert by_name["8 clients without pause ÷ bare loop at its best"].values == [0.8, 0.8]
    assert by_name["8 requests at once ÷ diffusers one by one"].values == [3.6, 3.6]
    assert by_name["8 requests at once ÷ diffusers one by one"].met
    assert by_name["8 clients without pause ÷ bare loop at its best"].met is False
    assert by_name["Bare loop, batch of 16"].values == [8.0, 5.5]


def calls_of(*rows: tuple[float, str]) -> list[Started]:
    return [Started(at_ms, frozenset(jobs)) for at_ms, jobs in rows]


@pytest.mark.parametrize(
    ("admitted_ms", "expected"), [(150, 1), (101, 1), (100, 2), (99.5, 2), (50, 2), (0, 3)]
)  # a call in the same millisecond counts, as nobody knows which was first
def test_calls_are_counted_from_the_admission_to_the_first_that_carries_the_job(
    admitted_ms: float, expected: int
) -> None:
    calls = calls_of((40, "a"), (100, "ab"), (200, "abc"), (300, "abc"))
    assert calls_until_first(calls, "c", admitted_ms) == expected


def test_mixed_cases_differ_in_everything_and_repeat_exactly() -> None:
    cases = mixed(200)
    assert cases == mixed(200) != mixed(200, seed=1)
    assert len({case["seed"] for case in cases}) == 200
    assert cases[::2] == plain(200)[::2]
    for name in ("guidance_scale", "purity_r", "steps", "sampler", "truncation_rate", "temperature"):
        assert len({case[name] for case in cases[1::2]}) > 1, name
    assert all("tokens_per_step" not in case for case in cases if case.get("sampler") == "ancestral")


def reply(began: float, ended: float, pictures: int = 1, error: str | None = None) -> Reply:
    return Reply(0, began, ended, None if error else {"images": [{}] * pictures}, error)


def test_a_load_summary_counts_pictures_and_names_errors() -> None:
    told = summary([reply(10, 11), reply(10.5, 12.5, pictures=3), reply(10, 14, error="503 full"), reply(11, 12)])
    assert told["requests"] == 4
    assert told["succeeded"] == 3
    assert told["pictures_per_second"] == 5 / 4
    assert (told["p50_s"], told["p99_s"], told["max_s"]) == (1, 2, 2)
    assert told["errors"] == {"503 full": 1}


def test_a_load_of_nothing_but_errors_has_no_latencies() -> None:
    assert summary([reply(0, 1, error="ReadTimeout")] * 2) == {
        "requests": 2,
        "succeeded": 0,
        "pictures_per_second": 0,
        "errors": {"ReadTimeout": 2},
    }


class Answers(BaseHTTPRequestHandler):
    """Every third request is refused as the service refuses."""

    def do_GET(self) -> None:
        self.answer(200, {})

    def do_POST(self) -> None:
        seed = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["seed"]
        counts: Any = self.server
        with counts.lock:
            counts.now += 1
            counts.most = max(counts.most, counts.now)
        counts.gate.wait(0.02)  # long enough for others to come, if they may
        with counts.lock:
            counts.now -= 1
        refused = {"type": "urn:vqd:problem:queue-full", "detail": "full"}
        self.answer(*((503, refused) if seed % 3 == 0 else (200, {"images": [{}]})))

    def answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.lock, server.gate, server.now, server.most = threading.Lock(), threading.Event(), 0, 0
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_load_test_keeps_to_its_concurrency_and_counts_refusals(server: Any) -> None:
    told = json.loads(load_test(f"http://127.0.0.1:{server.server_port}", requests=30, concurrency=4))
    assert (told["requests"], told["succeeded"]) == (30, 20)
    assert told["errors"] == {"503 full": 10}
    assert 2 <= server.most <= 4


def test_with_a_rate_the_wait_for_a_free_client_counts_as_latency(server: Any) -> None:
    """All are due at once and one client takes 20 ms for each: the last waits for all others."""
    url = f"http://127.0.0.1:{server.server_port}"
    assert json.loads(load_test(url, requests=15, concurrency=1, rate=1e6))["max_s"] > 14 * 0.02


def test_no_service_is_one_clear_error() -> None:
    command = [sys.executable, "-m", "service.cli", "bench", "load", f"http://127.0.0.1:{free_port()}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("vqd: no service answers at http://127.0.0.1")


def test_memory_is_that_of_the_whole_tree(tmp_path: Path) -> None:
    """A child that holds 64 MiB, started by a child that holds next to nothing."""
    grandchild = "import time; held = b'x' * 2**26; print('held', flush=True); time.sleep(60)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    process = spawn([sys.executable, "-c", child], tmp_path / "log")
    try:
        give_up_s = time.monotonic() + 20
        while "held" not in (tmp_path / "log").read_text():
            assert time.monotonic() < give_up_s
            time.sleep(0.01)
        assert len(descendants(process.pid)) == 2
        memory = memory_of(process.pid)
    finally:
        end(process)
    assert memory.processes == 2
    assert 2**26 < memory.pss <= memory.rss < 2**28


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Bare:
    folder = tmp_path_factory.mktemp("bench")
    write_model(folder / "model")
    export_model(folder / "model", folder / "repository", dtype="fp32")
    return Bare(folder / "repository")


def small_cases(bare: Bare, count: int) -> list[Fields]:
    """Within the ranges of a model of 16 tokens and 10 timesteps."""
    choose = random.Random(0)
    top = min(bare.info.tokens, bare.info.timesteps)
    return [{**fields, "steps": choose.randint(2, top), "tokens_per_step": bare.info.tokens} for fields in plain(count)]


def test_bare_modules_make_the_pictures_that_the_calls_do_not_change(bare: Bare) -> None:
    case = small_cases(bare, 1)[0]
    one, many = (bare.generate([case], calls)[0] for calls in (1, 100))
    assert one.remaining == many.remaining == 0
    assert (one.tokens == many.tokens).all()
    assert one.tokens.max() < bare.info.codes


def test_grids_do_not_depend_on_their_neighbours(bare: Bare) -> None:
    cases = small_cases(bare, 9)
    alone, found = flips_of_modules(bare, cases, sizes=(1, 4))
    assert alone == [tokens_sha256(bare.generate([case])[0].tokens) for case in cases]
    assert len(set(alone)) > 1
    assert [(one.where, one.grids, one.flipped) for one in found] == [
        ("modules, batch of 1", 9, 0),
        ("modules, batch of 4", 9, 0),
    ]


class Leaky(Bare):
    """Modules whose second row takes a code from the first."""

    def advance(self, rows: Sequence[Row], evaluations: int, step: Any = None) -> None:
        super().advance(rows, evaluations, step)
        if len(rows) > 1:
            rows[1].tokens[0] = (rows[0].tokens[0] + 1) % self.info.codes


def test_a_leak_between_rows_is_found(bare: Bare) -> None:
    leaky = Leaky.__new__(Leaky)
    leaky.__dict__.update(bare.__dict__)
    _, found = flips_of_modules(leaky, small_cases(bare, 9), sizes=(1, 3))
    assert found[0].flipped == 0
    assert found[1].flipped > 0
    assert found[1].line().met is False


def test_every_batch_has_the_size_that_it_is_reported_under(bare: Bare) -> None:
    rows: set[int] = set()
    watched = SimpleNamespace(
        begin=bare.begin,
        advance=lambda batch, evaluations: (rows.add(len(batch)), bare.advance(batch, evaluations)),
    )
    with tqdm(disable=True) as bar:
        hashes_in_batches(watched, small_cases(bare, 7), 3, 0, bar)  # type: ignore[arg-type]
    assert rows == {3}


def test_every_kind_of_case_is_a_valid_request(bare: Bare) -> None:
    info = bare.info.model_copy(update={"ranges": {}})
    parameters = [Wanted.of(fields, info).parameters for fields in mixed(40)]
    assert {p.sampler for p in parameters} == set(SAMPLERS)


def test_flips_are_counted_case_by_case() -> None:
    flips = Flips.between("here", ["a", "b", "c"], ["a", "c", "b"])
    assert (flips.grids, flips.flipped) == (3, 2)
    with pytest.raises(ValueError, match="zip"):
        Flips.between("here", ["a"], [])


# What diffusers says of itself.
@pytest.mark.filterwarnings("ignore:Accessing config attribute:FutureWarning")
@pytest.mark.filterwarnings("ignore:`Transformer2DModelOutput` is deprecated:FutureWarning")
def test_the_peer_gets_our_states_and_makes_as_many_pictures(tmp_path: Path, bare: Bare) -> None:
    write_model(tmp_path)
    diffusers = Peer(tmp_path, bare)
    assert diffusers.seconds(["red apple", "sun"], 3, bare.info.defaults) > 0
    pair = diffusers.pipeline._encode_prompt(["red apple", "sun"], 1, True)
    rows = bare.begin([{"prompt": "red apple", "seed": 0}, {"prompt": "sun", "seed": 1}])
    conditions = [row.conditions for row in rows if row.conditions]
    expected = [null for _, null in conditions] + [prompt for prompt, _ in conditions]
    assert torch.equal(pair, torch.from_numpy(np.stack(expected)).float())


def test_the_sheets_prompts_follow_a_rule(tmp_path: Path) -> None:
    """Nameable categories only, seen ones first, none twice; the same for ever."""
    count = 300
    names = [f"thing {i}, noto style" for i in range(count)]
    (tmp_path / "captions.json").write_text(json.dumps(names))
    held_out = np.arange(count) % 4 == 0
    np.savez(
        tmp_path / "pictures.npz",
        categories=np.array(["Symbols", "Objects", "Food & Drink"] * (count // 3)),
        held_out=held_out,
        captions=np.arange(count, dtype=np.int32)[:, None, None] * np.ones((1, 6, 2), np.int32),
    )
    prompts = sheet_prompts(tmp_path)
    places = [names.index(prompt) for prompt in prompts]
    assert len(set(places)) == 64
    assert all(place % 3 for place in places)
    assert held_out[places].tolist() == [False] * 48 + [True] * 16
    assert prompts == sheet_prompts(tmp_path)
    assert places != sorted(places)
    with pytest.raises(SetupError, match="holds no pictures: run `vqd train data` first"):
        sheet_prompts(tmp_path / "nowhere")


def test_labels_are_short() -> None:
    assert short("smiling face with heart-eyes and more, noto style") == "smiling face with\nheart-eyes and"
