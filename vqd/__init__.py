"""The Python client of a vqd service: ``Client`` waits, ``AsyncClient`` is awaited.

>>> import vqd
>>> with vqd.Client("http://localhost:8080") as client:
...     client.generate("red apple", seed=7).images[0].save("apple.png")

What is not named here is the service's own, and may change.
"""

from service.client.asynchronous.client import AsyncClient
from service.client.asynchronous.driver import AsyncEvents
from service.client.asynchronous.job import AsyncJob
from service.client.blocking.client import Client
from service.client.blocking.driver import Events
from service.client.blocking.job import Job
from service.client.events import Event, Preview
from service.client.fields import Fields, Options, Source
from service.client.pictures import Picture, Pictures
from service.errors import (
    Conflict,
    DeadlinePassed,
    Forbidden,
    GivenUp,
    InferenceFailed,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    QueueFull,
    QuotaExceeded,
    RetryLater,
    SetupError,
    StillRunning,
    Unauthorized,
    Unavailable,
    VqdError,
)
from service.messages import Status

__all__ = [
    "AsyncClient",
    "AsyncEvents",
    "AsyncJob",
    "Client",
    "Conflict",
    "DeadlinePassed",
    "Event",
    "Events",
    "Fields",
    "Forbidden",
    "GivenUp",
    "InferenceFailed",
    "InvalidRequest",
    "Job",
    "NotFound",
    "Options",
    "PayloadTooLarge",
    "Picture",
    "Pictures",
    "Preview",
    "QueueFull",
    "QuotaExceeded",
    "RetryLater",
    "SetupError",
    "Source",
    "Status",
    "StillRunning",
    "Unauthorized",
    "Unavailable",
    "VqdError",
]
