"""A job's pictures between decoder and end: a real Redis, a real S3 server, and the worker's parts one by one."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest
import test_worker_jobs as worker_jobs
from both_sides import JobQueue
from s3_support import BUCKET, KEY, SECRET, S3Server, s3_server
from test_worker_jobs import claim, count, run

from service.errors import SetupError, StorageUnavailable
from service.messages import Status
from service.queue import keys
from service.settings import Settings
from service.storage import NOTHING, Bucket
from service.worker.job import HeldJob, State
from service.worker.jobs import HeldJobs
from service.worker.reporter import Reporter
from service.worker.uploads import AWAY_S, Uploads, headers_of

pytestmark = pytest.mark.anyio
queue, jobs = worker_jobs.queue, worker_jobs.jobs


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


def bucket_at(endpoint: str, **changed: object) -> Bucket:
    given = {"s3_bucket": BUCKET, "s3_endpoint": endpoint, "s3_timeout_s": 2.0}
    bucket = Bucket.of(Settings(**given | changed))  # type: ignore[arg-type]
    assert bucket is not None
    return bucket


@pytest.fixture
async def uploads(jobs: HeldJobs, s3: S3Server) -> AsyncIterator[Uploads]:
    made = Uploads(jobs.metrics, bucket_at(s3.endpoint(), s3_timeout_s=30.0))
    running = asyncio.create_task(made.run())
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def decoded(jobs: HeldJobs, queue: JobQueue, job_id: str = "one", n: int = 1) -> HeldJob:
    job = await run(await claim(jobs, queue, job_id, n=n))
    job.enter(State.DECODING)
    job.files = {row.image: f"picture {place}".encode() for place, row in enumerate(job.rows)}
    return job


async def in_redis(queue: JobQueue, job_id: str = "one") -> dict[bytes, bytes]:
    return dict(await queue.redis.hgetall(keys.images(job_id)))  # type: ignore[misc]


async def test_a_stored_picture_is_where_the_result_says(
    jobs: HeldJobs, queue: JobQueue, uploads: Uploads, s3: S3Server
) -> None:
    await uploads.take([await decoded(jobs, queue, "stored", n=2)])
    await uploads.settle()
    view = await queue.view("stored")
    assert view.result is not None
    assert [info.stored and (info.stored.key, info.stored.size) for info in view.result.images] == [
        ("stored/1/0.png", 9),
        ("stored/1/1.png", 9),
    ]
    assert s3.read("stored/1/1.png")[0] == b"picture 1"
    assert (await in_redis(queue, "stored"), list(jobs)) == ({}, [])
    assert (count(jobs, "vqd_storage_seconds_count"), count(jobs, "vqd_storage_errors_total")) == (2, 0)


async def test_without_storage_a_job_ends_at_once(jobs: HeldJobs, queue: JobQueue) -> None:
    await Uploads(jobs.metrics).take([await decoded(jobs, queue, n=2)])
    assert await in_redis(queue) == {b"0": b"picture 0", b"1": b"picture 1"}
    view = await queue.view("one")
    assert "stored" not in view.result.model_dump_json()  # type: ignore[union-attr]


async def test_who_wants_no_words_in_the_file_gets_none_beside_it(jobs: HeldJobs, queue: JobQueue) -> None:
    job = await decoded(jobs, queue)
    assert headers_of(job, 0) == {"Content-Type": "image/png", "Content-Disposition": 'inline; filename="a-0-0.png"'}
    silent = job.lease.job.model_copy(update={"metadata": False})
    job.lease = replace(job.lease, job=silent)
    assert headers_of(job, 0) == {"Content-Type": "image/png"}


async def test_a_cancel_is_heard_while_a_picture_is_on_the_way(
    jobs: HeldJobs, queue: JobQueue, uploads: Uploads, s3: S3Server
) -> None:
    s3.process.send_signal(signal.SIGSTOP)
    job = await decoded(jobs, queue, "cancelled")
    await uploads.take([job])
    assert (job.state, job.held) == (State.STORING, True)
    await queue.cancel("cancelled")
    job.renewed_s = float("-inf")
    await Reporter(jobs, queue.settings).report()
    assert (await queue.view("cancelled")).status is Status.CANCELLED
    s3.process.send_signal(signal.SIGCONT)
    await uploads.settle()
    view = await queue.view("cancelled")
    assert (view.status, view.result) == (Status.CANCELLED, None)


async def test_a_drain_waits_for_it(jobs: HeldJobs, queue: JobQueue, uploads: Uploads, s3: S3Server) -> None:
    s3.process.send_signal(signal.SIGSTOP)
    await uploads.take([await decoded(jobs, queue, "late")])
    settling = asyncio.create_task(uploads.settle())
    await asyncio.wait([settling], timeout=0.1)
    assert not settling.done()
    s3.process.send_signal(signal.SIGCONT)
    await settling
    assert (await queue.view("late")).status is Status.SUCCEEDED


async def test_a_job_with_a_deadline_waits_for_half_of_what_is_left(
    jobs: HeldJobs, queue: JobQueue, uploads: Uploads, s3: S3Server
) -> None:
    """Then its picture goes to Redis, and nobody takes the storage for dead."""
    s3.process.send_signal(signal.SIGSTOP)
    job = await decoded(jobs, queue, "hurried")
    hurried = job.lease.job.model_copy(update={"deadline_ms": 1000})
    job.lease = replace(job.lease, job=hurried)
    await uploads.take([job])
    async with asyncio.timeout(10):  # a third of what the storage may take otherwise
        await uploads.settle()
    s3.process.send_signal(signal.SIGCONT)
    assert await in_redis(queue, "hurried") == {b"0": b"picture 0"}
    assert uploads.away_until_s < 0


async def test_storage_that_is_down_is_left_alone_for_a_while(jobs: HeldJobs, queue: JobQueue, s3: S3Server) -> None:
    uploads = Uploads(jobs.metrics, bucket_at("http://127.0.0.1:1"))
    first, second = [await decoded(jobs, queue, name) for name in ("first", "second")]
    await uploads.store(first, 0, first.rows[0])
    uploads.bucket = bucket_at(s3.endpoint())
    await uploads.store(second, 0, second.rows[0])
    assert (first.stored, second.stored, count(jobs, "vqd_storage_errors_total")) == ({}, {}, 2)
    uploads.away_until_s -= AWAY_S
    await uploads.store(second, 0, second.rows[0])
    assert second.stored[0].key == "second/1/0.png"


# The bucket itself


async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes) -> None:
    """One answer to whatever is asked."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(answer)
    await writer.drain()
    writer.close()


@pytest.mark.parametrize(
    ("status", "body", "says", "refused"),
    [
        ("503 Slow Down", "", "503 Service Unavailable", False),
        ("507 Full", "", "507 Insufficient Storage", False),
        ("400 Bad Request", "<Error><Code>AuthorizationHeaderMalformed</Code></Error>", "AuthorizationHeaderM", True),
        ("404 Not Found", "<html>no storage at all</html>", "404 Not Found", True),
        (
            "403 Forbidden",
            "<Error><Code>AccessDenied</Code><AWSAccessKeyId>me</AWSAccessKeyId></Error>",
            "Denied",
            True,
        ),
        ("301 Moved Permanently", "", "incorrectly configured region", True),
    ],
    ids=lambda value: str(value)[:3],
)
async def test_an_answer_is_told_in_short(status: str, body: str, says: str, refused: bool) -> None:
    """And what may be refused at the start is told from what may heal."""
    answer = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
    async with await asyncio.start_server(lambda r, w: answering(r, w, answer), "127.0.0.1", 0) as server:
        endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        bucket = bucket_at(endpoint)
        with pytest.raises(StorageUnavailable, match=says) as caught:
            await bucket.get("a")
        assert str(caught.value).startswith(f"S3 storage: GET {endpoint}: ")
        assert caught.value.refused is refused
        assert not {"me", "html", SECRET, KEY} & {*str(caught.value).split()}
        if refused:
            for check in (bucket.check_readable, bucket.check_writable):
                with pytest.raises(SetupError, match=f"VQD_S3_BUCKET={BUCKET} cannot be used: S3 storage: .*{says}"):
                    await check()
        else:
            await bucket.check_writable()


async def test_a_silent_storage_is_bounded_and_counted() -> None:
    silent = asyncio.Event()

    async def keep_silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await silent.wait()
        writer.close()

    failed: list[str] = []
    async with await asyncio.start_server(keep_silent, "127.0.0.1", 0) as server:
        bucket = bucket_at(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", s3_timeout_s=0.3)
        bucket.on_failed = lambda: failed.append("once")
        async with asyncio.timeout(10):
            with pytest.raises(StorageUnavailable, match=r"no answer in time|error sending"):
                await bucket.get("a")
        silent.set()
    assert failed == ["once"]


async def test_reading_tells_how_long_it_took(s3: S3Server) -> None:
    took: list[float] = []
    bucket = bucket_at(s3.endpoint())
    bucket.on_read = took.append
    assert await bucket.get(NOTHING) is None
    await bucket.put("here", b"data", {"Content-Type": "image/png"})
    assert await bucket.get("here") == b"data"
    assert [0 < seconds < bucket.limit_s for seconds in took] == [True, True]
    assert SECRET not in repr(bucket.store) + repr(bucket)


def test_nothing_is_opened_without_a_bucket() -> None:
    assert Bucket.of(Settings()) is None
