"""Open-loop load: who arrives when, what is made of the answers, and the simulation against hand-made sums."""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples import make_info, make_parameters

from service.diffusion.plan import Plan
from service.diffusion.samplers import make_plan
from service.engine.scheduler import Scheduler, StepCall
from service.errors import SetupError, Unavailable
from service.lab.bench.arrivals import Mix, Rate, poisson, read_rates
from service.lab.bench.closed_batches import ClosedBatches
from service.lab.bench.levels import Level, Served, published, read_csv, table
from service.lab.bench.levels_plot import plot_levels
from service.lab.bench.open_loop import Policy, Trial, measure
from service.lab.bench.simulation import ModelTimes, Simulation, Visit, VisitRow, read_times, simulate


def test_rates_are_per_second_or_shares_of_the_capacity() -> None:
    absolute, share = read_rates("4, 0.5x")
    assert (absolute.per_second(8), absolute.share(8)) == (4, 0.5)
    assert (share.per_second(8), share.share(8)) == (4, 0.5)
    for wrong in ("", "x", "-1", "0", "nanx", "inf", "1,,2", "fast"):
        with pytest.raises(SetupError, match="neither requests per second"):
            read_rates(wrong)


def test_arrivals_are_poissons_and_the_same_pattern_at_every_rate() -> None:
    """A Poisson process has intervals whose standard deviation is their mean."""
    due = poisson(4.0, 20_000)
    gaps = np.array([later - earlier for earlier, later in pairwise(due)])
    assert gaps.mean() == pytest.approx(0.25, rel=0.02)
    assert gaps.std() == pytest.approx(0.25, rel=0.03)
    assert poisson(8.0, 100) == pytest.approx([one / 2 for one in due[:100]])
    assert poisson(4.0, 100, seed=1) != due[:100]


def test_no_two_requests_of_a_mix_share_a_prompt() -> None:
    for mix in Mix:
        cases = mix.requests(240)
        assert len({case["prompt"] for case in cases}) == 240, mix
        assert cases == mix.requests(240)
    assert len({json.dumps({**case, "prompt": "", "seed": 0}) for case in Mix.PLAIN.requests(100)}) == 1
    assert {case.get("n", 1) for case in Mix.MIXED.requests(100)} == {1, 2}


def level(served: Sequence[Served], errors: dict[str, int] | None = None, best: Sequence[Served] = ()) -> Level:
    return Level("step", "plain", 0.5, 4.0, 1.0, served, errors or {}, best)


def test_a_level_is_told_in_one_line() -> None:
    """Four of five are served, one of them too late; they span from 1 s to 5 s."""
    served = [Served(1.0 + i, 0.1 * i, 0.5 + 0.2 * i, 1 + i % 2, 1 + i % 2) for i in range(4)]
    row = level(served, {"503 full": 1}, [Served(0, 0, 0.55, 1)]).row()
    assert (row["requests"], row["errors"], row["in_time"], row["worst_call"]) == (5, 1, 0.6, 2)
    assert row["pictures_per_second"] == pytest.approx(6 / (4.0 + 1.1 - 1.0), abs=1e-4)
    assert (row["first_p50"], row["done_p50"], row["done_p95"]) == (0.1, 0.7, 1.1)
    assert row["growth"] == pytest.approx(1.1 / 0.7, abs=1e-4)
    assert row["p95_to_best"] == 2.0
    assert row["steady"] == pytest.approx(3 / (5.1 - 2.7)), "from the second answer to the fourth"


def test_a_level_of_errors_has_no_times() -> None:
    assert level([], {"503 full": 3}).row() == {
        **{"policy": "step", "mix": "plain", "share": 0.5, "rate": 4.0},
        **{"requests": 3, "errors": 3},
    }


def test_levels_come_back_from_their_file_and_are_drawn(tmp_path: Path) -> None:
    rows = [level([Served(0, 0.1, 0.2, 1)]).row(), level([], {"503": 1}).row()]
    told = published(iter([level([Served(0, 0.1, 0.2, 1)]), level([], {"503": 1})]), tmp_path / "new" / "load.csv")
    assert told == f"{table(rows)}\n\n{tmp_path / 'new' / 'load.csv'}"
    again = read_csv(tmp_path / "new" / "load.csv")
    assert [row["done_p95"] for row in again] == [0.2, ""]
    assert table(again) == table(rows)
    assert table(rows).splitlines()[0].count("|") == table(rows).splitlines()[3].count("|")
    plot_levels(again, tmp_path / "load.png")
    assert (tmp_path / "load.png").stat().st_size > 1000


TIMES = ModelTimes(
    model=make_info(),
    encode={1: 0.01, 2: 0.015},
    decode={1: 0.005, 2: 0.008},
    guided={1: 0.02, 2: 0.03},
    unguided={1: 0.01, 2: 0.02},
    facts={},
)


def guided(evaluations: int, due: float = 0.0, rows: int = 1, **parameters: object) -> Visit:
    """A request of so many pictures, each of so many evaluations of two passes."""
    zeros = np.zeros(evaluations, np.int32)
    fields = {**vars(Plan(*[zeros] * 12)), "weights": np.ones((evaluations, 2), np.float32)}
    visit = Visit(due, [], texts=1, undrawn=rows)
    visit.rows = [
        VisitRow(
            parameters=make_parameters(**parameters),
            image=image,
            plan=Plan(**fields),
            tokens=np.zeros(4, np.int32),
            visit=visit,
        )
        for image in range(rows)
    ]
    return visit


def served_by(scheduler: Scheduler[VisitRow], visits: Sequence[Visit], max_rows: int = 8) -> list[tuple[float, ...]]:
    served = Simulation(TIMES, scheduler, max_rows).run(visits)
    return [(one.due, round(one.first, 6), round(one.done, 6), one.call) for one in served]


def test_the_simulation_of_step_batching_by_hand() -> None:
    """Milliseconds; A is due at 0, B at 20, three evaluations each, a call aims at 50.

    0 encode A, 10 step A, 30 encode B, 40 step BA, 70 step BA, 100 decode A, 105 step B, 125 decode B, 130.
    """
    served = served_by(Scheduler(2, 0.05), [guided(3), guided(3, due=0.02)])
    assert served == [(0, 0.01, 0.105, 1), (0.02, 0.02, 0.11, 1)]


def test_the_simulation_of_request_batching_by_hand() -> None:
    """0 encode A, 10 step A, 30 encode B, 40 2 steps A, 80 decode A, 85 2 steps B, 125 step B, 145 decode B, 150."""
    served = served_by(ClosedBatches(2, 0.05), [guided(3), guided(3, due=0.02)])
    assert served == [(0, 0.01, 0.085, 1), (0.02, 0.065, 0.13, 2)]


def test_who_finds_no_room_waits_in_line() -> None:
    """A of two pictures fills the room: 0 encode, 10 step, 40 decode both, 48 encode B, 58 step B, 78 decode, 83."""
    served = served_by(Scheduler(2, 0.05), [guided(1, rows=2), guided(1, due=0.02)], max_rows=2)
    assert served == [(0, 0.01, 0.048, 1), (0.02, 0.038, 0.063, 1)]


def test_an_evaluation_costs_its_passes() -> None:
    assert TIMES.evaluation([2, 2]) == 0.03
    assert TIMES.evaluation([1, 1]) == 0.02
    assert TIMES.evaluation([1, 2]) == pytest.approx(0.025)


def test_requests_are_simulated_with_the_plans_that_they_would_have() -> None:
    """The first of four evaluations is unguided with this schedule: 0 encode, 10 step, 20 three steps, 80, decode."""
    fields = {"prompt": "sun", "seed": 1, "guidance_schedule": [1.0, 3.0, 3.0, 3.0], "tokens_per_step": 4}
    plan = make_plan(make_parameters(guidance_schedule=(1.0, 3.0, 3.0, 3.0)), 16, 100)
    assert np.count_nonzero(plan.weights, axis=1).tolist() == [1, 2, 2, 2]
    [one] = simulate([fields], [0.5], TIMES, Scheduler, 0.05, 8)
    assert (one.due, round(one.done, 6)) == (0.5, 0.085)


def test_times_are_read_from_their_file_and_nothing_else_is(tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    path.write_text(TIMES.model_dump_json())
    assert read_times(path) == TIMES
    path.write_text("{}")
    with pytest.raises(SetupError, match="is not what `vqd bench times` writes"):
        read_times(path)


def rows_of(*visits: Visit) -> list[VisitRow]:
    return [row for visit in visits for row in visit.rows]


def finish(subject: ClosedBatches[VisitRow], call: StepCall[VisitRow]) -> list[VisitRow]:
    return subject.finish(call, np.stack([row.tokens for row in call.rows]), 0.01)


def test_a_closed_batch_lets_nobody_in_until_all_its_rows_are_done() -> None:
    subject: ClosedBatches[VisitRow] = ClosedBatches(4, 0.01)
    first, late = guided(3, rows=2), guided(3)
    subject.add(first.rows)
    done: list[VisitRow] = []
    while len(done) < 2:
        call = subject.next_call(0)
        assert call is not None
        assert set(call.rows) == set(first.rows)
        subject.add(late.rows if len(subject) == 2 else [])
        assert subject.next_call(0) is None, "one call at a time"
        done += finish(subject, call)
    call = subject.next_call(0)
    assert call is not None
    assert set(call.rows) == set(late.rows)


def test_a_closed_batch_has_equal_parameters_but_for_the_seed_and_keeps_to_its_size() -> None:
    subject: ClosedBatches[VisitRow] = ClosedBatches(3, 0.01)
    alike = [guided(1, seed=seed, n=1 + seed % 2) for seed in range(4)]
    other = guided(1, purity_r=2.0)
    subject.add(rows_of(alike[0], other, *alike[1:]))
    batches = []
    while call := subject.next_call(0):
        batches.append(list(call.rows))
        finish(subject, call)
    assert batches == [rows_of(*alike[:3]), other.rows, alike[3].rows]


def test_a_closed_batch_forgets_who_is_dropped() -> None:
    subject: ClosedBatches[VisitRow] = ClosedBatches(2, 0.01)
    both, late = guided(3, rows=2), guided(1)
    subject.add([*both.rows, *late.rows])
    call = subject.next_call(0)
    assert call is not None
    both.rows[0].dropped = True
    finish(subject, call)
    call = subject.next_call(0)
    assert call is not None
    assert call.rows == (both.rows[1],)


REQUESTS = 30


class Patient(BaseHTTPRequestHandler):
    """Answers nobody before all are there."""

    def do_GET(self) -> None:
        self.answer({})

    def do_POST(self) -> None:
        began = time.monotonic()
        self.rfile.read(int(self.headers["Content-Length"]))
        assert isinstance(self.server, Server)
        self.server.all_there.wait(timeout=30)
        total_s = time.monotonic() - began
        self.answer({"images": [{}], "timings": {"total_s": total_s, "first_s": total_s / 2, "first_call": 2}})

    def answer(self, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, REQUESTS

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Patient)
        self.all_there = threading.Barrier(REQUESTS)


@pytest.fixture
def url() -> Iterator[str]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_open_loop_waits_for_no_answer(url: str) -> None:
    """Nobody is answered before the last has come, so any limit to the requests under way would end in errors."""
    [found] = measure(url, Policy.STEP, Trial(Mix.PLAIN, [Rate(0.5, True)], REQUESTS, deadline_s=60), most=400)
    due = poisson(200, REQUESTS)
    assert (found.rate, found.share, found.errors) == (200, 0.5, {})
    assert [one.due for one in found.served] == pytest.approx(due)
    assert {one.call for one in found.served} == {2}
    assert all(one.due + one.done >= due[-1] and 0 < one.first < one.done for one in found.served)


def test_what_was_measured_before_a_failure_is_kept(tmp_path: Path) -> None:
    def levels() -> Iterator[Level]:
        yield level([Served(0, 0.1, 0.2, 1)])
        raise Unavailable("gone")

    with pytest.raises(Unavailable):
        published(levels(), tmp_path / "load.csv")
    assert [row["done_p95"] for row in read_csv(tmp_path / "load.csv")] == [0.2]
