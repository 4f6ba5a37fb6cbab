"""Where the time of a request goes: the stages add up to what its client saw, whatever the spans say."""

import pytest

from service.lab.bench.profile import Column, Profile, triton_times
from service.lab.bench.spans import Span
from service.lab.bench.stages import MS, UNACCOUNTED, Asked, TritonTimes, profile_of, stages

ASKED = Asked("trace", 0, 200 * MS)


def span(name: str, began_ms: float, ended_ms: float) -> Span:
    return Span(name, "trace", name, "", round(began_ms * MS), round(ended_ms * MS), False, {}, {})


SPANS = [
    span("complete", 180, 184),
    span("POST /generate", 1, 195),
    span("queue wait", 6, 9),
    span("enqueue", 3, 6),
    span("encode", 10, 20),
    span("diffusion_step", 90, 170),
    span("diffusion_step", 25, 85),
    span("decode", 171, 178),
    span("answer", 186, 194),
]


def test_the_stages_of_a_request_follow_each_other() -> None:
    assert [*stages(ASKED, SPANS)] == [
        ("client → route: connection, HTTP parser, middleware", 1),
        ("JSON, validation, plan", 2),
        ("enqueue (Redis)", 3),
        ("until a worker has claimed and tokenised it", 4),
        ("encode", 10),
        ("between calls: other requests' turns, scheduler", 5),
        ("step calls", 60),
        ("between calls: other requests' turns, scheduler", 5),
        ("step calls", 80),
        ("until the grid is decoded: a turn", 1),
        ("decode", 7),
        ("PNG", 2),
        ("store (Redis)", 4),
        ("the gateway is told, and reads the job", 2),
        ("answer: pictures from Redis, JSON", 8),
        ("answer → client: middleware, log, connection", 1),
        (UNACCOUNTED, 5),
    ]


@pytest.mark.parametrize("answer", [(186, 194), (182, 194), (179, 199)])
def test_a_part_that_is_early_counts_no_moment_twice(answer: tuple[float, float]) -> None:
    """The gateway may answer before the worker has heard that its result is stored, and be read before its log line."""
    others = [one for one in SPANS if one.name not in {"answer", "POST /generate"}]
    found = [*stages(ASKED, [*others, span("answer", *answer), span("POST /generate", 1, 201)])]
    assert sum(ms for _, ms in found) == pytest.approx(200)
    assert min(ms for _, ms in found) >= 0


def test_a_call_is_what_triton_says_of_itself_and_the_rest() -> None:
    triton = {"diffusion_step": TritonTimes(queue=1, backend=60), "text_encoder": TritonTimes(queue=2, backend=7)}
    rows = profile_of(ASKED, SPANS, triton)
    assert rows["step calls: in the backend"] == 120
    assert rows["step calls: in Triton's queue"] == 2
    assert rows["step calls: batch, gRPC, Triton's front, turn"] == 18
    assert rows["encode: in the backend"] == 7
    assert rows["encode: batch, gRPC, Triton's front, turn"] == 1
    assert rows["decode"] == 7, "Triton said nothing of it"
    assert rows["between calls: other requests' turns, scheduler"] == 10
    assert sum(rows.values()) == pytest.approx(200)


def test_times_of_triton_are_of_the_calls_meanwhile() -> None:
    def counters(calls: int, queue_us: int, infer_us: int) -> dict[tuple[str, str], float]:
        return {
            ("nv_inference_exec_count_total", "diffusion_step"): calls,
            ("nv_inference_queue_duration_us_total", "diffusion_step"): queue_us,
            ("nv_inference_compute_input_duration_us_total", "diffusion_step"): 0,
            ("nv_inference_compute_infer_duration_us_total", "diffusion_step"): infer_us,
            ("nv_inference_compute_output_duration_us_total", "diffusion_step"): calls * 500,
        }

    times = triton_times(counters(10, 5_000, 100_000), counters(14, 7_000, 180_000))
    assert times == {"diffusion_step": TritonTimes(queue=0.5, backend=20.5)}
    assert triton_times({}, {}) == {}


def test_the_table_has_every_stage_of_every_column_and_the_wall_time() -> None:
    alone = Column("one alone", {"enqueue": 1.0, "steps": 99.0}, 100.0, 30)
    eight = Column("8 at once", {"enqueue": 4.0, "turns": 196.0}, 200.0, 240)
    assert Profile([alone, eight], {}).table().splitlines() == [
        "| Stage, ms (share) | one alone (30) | 8 at once (240) |",
        "| --- | --- | --- |",
        "| enqueue | 1 (1.0%) | 4 (2.0%) |",
        "| steps | 99 (99.0%) | 0 (0.0%) |",
        "| turns | 0 (0.0%) | 196 (98.0%) |",
        "| **wall time at the client** | **100** | **200** |",
    ]
