"""All settings, read once from the environment (prefix ``VQD_``) in the entry points and passed down."""

import re
from base64 import b64decode
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.errors import SetupError

LogFormat = Literal["json", "text"]
Scaling = Literal["lanczos", "nearest", "off"]
PREFIX = "VQD_"
SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT)|_PORT_\d+_(TCP|UDP)|=(tcp|udp)://")
"""In NAME=VALUE: what Kubernetes tells every pod of a service that is called vqd-something."""

HOST_PATTERN = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]")
ORIGIN_PATTERN = re.compile(r"\*|[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?")
PUBLIC_PATTERN = re.compile(r"(https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?)?")
PREFIX_PATTERN = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*")


class Settings(BaseSettings):
    """Every setting; the field's name in capitals after ``VQD_`` is its environment variable."""

    model_config = SettingsConfigDict(env_prefix="VQD_", frozen=True, extra="ignore")

    host: str = Field("127.0.0.1", description="Address the gateway binds.")
    port: int = Field(8080, ge=0, le=65535, description="Port the gateway binds; 0 picks a free one.")
    allow_unauthenticated: bool = Field(False, description="Serve everyone who can connect, and ask for no API key.")
    key_file: Path | None = Field(None, description="A file of API keys, one a line, each with every right.")
    api_key: str = Field(
        "", pattern="^[!-~]*$", repr=False, description="The API key that `vqd generate` and `vqd bench` send."
    )
    allowed_hosts: str = Field(
        "",
        description="Names that clients may call the gateway by, with commas; *.example.com for all below one. Empty: "
        "on loopback only this machine's own, elsewhere any.",
    )
    cors_origins: str = Field(
        "",
        description="Origins (https://app.example.com, with commas) whose web pages may use the gateway; * for all, "
        "which takes API keys. Empty: only pages of its own.",
    )
    public_url: str = Field(
        "",
        description="What clients reach the gateway at, https://vqd.example.com: links in webhooks and in answers of "
        "OpenAI's API begin with it. Empty: the former are paths, the latter begin with what a client called us.",
    )
    root_path: str = Field("", description="Prefix, such as /vqd, that a proxy in front takes away; empty: none.")
    metrics_port: int = Field(
        0, ge=0, le=65535, description="Port of the gateway's /metrics without a key, on VQD_HOST; 0: none of its own."
    )
    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        pattern=r"^(rediss?(\+sentinel|\+cluster)?|unix)://",
        repr=False,  # it may hold a password
        description="Where the queue lives: redis://, rediss:// (TLS), redis+sentinel://, redis+cluster:// or unix://, "
        "with a password if need be.",
    )
    redis_timeout_s: float = Field(1.0, gt=0, description="Longest wait for one Redis answer.")
    durable_replicas: int = Field(0, ge=0, description="Replicas of Redis that must have a job before it is accepted.")
    durable_timeout_s: float = Field(0.5, gt=0, description="Longest wait for these replicas.")
    triton_url: str = Field(
        "127.0.0.1:8001", pattern=r"^[^/\s]+:\d{1,5}$", description="Triton's gRPC address, host:port."
    )
    triton_timeout_s: float = Field(
        60.0, gt=0, description="Longest wait for one Triton answer that is not known to take long."
    )
    repository: Path = Field(Path("model_repository"), description="Exported model repository (worker only).")

    queue_capacity: int = Field(1000, ge=1, description="Jobs waiting or running before new ones get 503.")
    result_ttl_s: int = Field(3600, ge=1, description="How long a finished job and its images are kept.")
    idempotency_ttl_s: int = Field(86400, ge=1, description="How long an Idempotency-Key is remembered.")
    lease_ms: int = Field(5000, ge=100, description="A job whose worker is silent this long is taken over.")
    scan_ms: int = Field(1000, ge=50, description="Pause between two scans for such jobs.")
    max_attempts: int = Field(
        3, ge=1, description="How often a job may lose its worker or Triton while nothing else runs beside it."
    )
    checkpoint_ms: int = Field(1000, ge=50, description="Longest time between two checkpoints of a running job.")

    max_rows: int = Field(32, ge=1, description="Images one worker keeps in flight.")
    max_batch: int = Field(8, ge=1, description="Most images in one diffusion_step call.")
    calls_in_flight: int = Field(
        1, ge=1, le=2, description="Most Triton calls at once: 1 on a CPU, where they fight over cores; 2 on a GPU."
    )
    call_target_ms: float = Field(300.0, gt=0, description="Aim for the length of one diffusion_step call.")
    preview_every: int = Field(
        4, ge=0, description="Evaluations of a picture between two previews of it, where somebody asks; 0: none."
    )
    drain_s: float = Field(10.0, gt=0, description="Longest time a stopping worker takes to hand its jobs over.")
    worker_metrics_port: int = Field(
        0, ge=0, le=65535, description="Port of the worker's /healthz, /readyz and /metrics, on VQD_HOST; 0: none."
    )

    webhook_secret: str = Field(
        "",
        repr=False,
        description="What the secrets that sign webhooks are made from (whsec_…), or several with commas, the newest "
        "first; empty: none are sent.",
    )
    webhook_hosts: str = Field(
        "",
        description="Names that webhooks may go to, with commas; *.example.com for all below one. Empty: any that has "
        "public addresses only.",
    )
    webhook_http: bool = Field(False, description="Allow http:// for webhooks, too.")
    webhook_timeout_s: float = Field(10.0, gt=0, le=60, description="Longest wait for the answer to a webhook.")
    webhook_retry_s: float = Field(5.0, gt=0, description="First pause before a webhook is sent again; then longer.")
    webhook_give_up_s: float = Field(
        86400.0, ge=0, le=6 * 86400, description="How long after its job's end a webhook is sent again."
    )

    s3_bucket: str = Field(
        "",
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{1,62})?$",
        description="Bucket of S3-compatible storage for finished pictures; empty: they stay in Redis. Needs the extra "
        "`s3`; credentials are the standard AWS_* variables, a web identity or a role.",
    )
    s3_prefix: str = Field(
        "",
        pattern=r"^([A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*)?$",
        description="What the names of all objects begin with, such as vqd/pictures; empty: nothing.",
    )
    s3_endpoint: str = Field(
        "",
        pattern=r"^(https?://[^\s/@?#]+(/[^\s@?#]*)?)?$",
        repr=False,  # it may hold a password, which has no place there
        description="Where the storage is, such as https://minio.example.com:9000; empty: AWS.",
    )
    s3_region: str = Field(
        "", pattern="^[A-Za-z0-9-]*$", description="Its region; empty: what AWS_REGION says, or us-east-1."
    )
    s3_timeout_s: float = Field(
        5.0, gt=0, le=60, description="Longest time to store or to read one picture, with all that is tried again."
    )

    key_cost_per_minute: int = Field(
        0, ge=0, description="Passes of the network a minute for an API key that has no limit of its own; 0: no limit."
    )
    key_jobs: int = Field(0, ge=0, description="Jobs waiting or running at once, for such a key; 0: no limit.")
    key_result_bytes: int = Field(0, ge=0, description="Bytes of pictures kept for such a key; 0: no limit.")

    sync_wait_s: float = Field(50.0, ge=0, description="Longest synchronous answer before 202.")
    openai_scaling: Scaling = Field(
        "lanczos",
        description="How pictures are brought to the `size` that a client of OpenAI's API asks for; off: only the "
        "model's own is answered.",
    )
    max_streams: int = Field(2000, ge=1, description="Clients that may follow the events of jobs at once.")
    max_connections: int = Field(4000, ge=1, description="Connections kept open at once; then silent clients go.")
    request_timeout_s: float = Field(10.0, gt=0, description="Longest time to send a request, head and body.")
    max_header_bytes: int = Field(65536, ge=1024, description="Largest head of a request.")
    max_body_bytes: int = Field(65536, ge=1024, description="Largest request body, without the pictures in it.")
    max_image_bytes: int = Field(4 * 2**20, ge=1024, description="Largest file of a picture to begin with.")
    max_image_pixels: int = Field(
        2**24, ge=1, le=2**26, description="Most pixels of such a picture; more are refused before they are decoded."
    )
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least severe log line shown.")
    log_format: LogFormat = Field(
        "json", description="json: an object per line; text: for people, and what `vqd up` uses unless this is set."
    )
    otlp_endpoint: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="OpenTelemetry collector (OTLP over HTTP, such as http://collector:4318) for traces; empty: none. "
        "Needs the extra `otel`; sampling, headers and certificates are the standard OTEL_* variables.",
    )

    @field_validator("*", mode="before")
    @classmethod
    def without_line_end(cls, value: object) -> object:
        """A shell that reads a .env file from Windows leaves its carriage returns in the values."""
        return value.rstrip("\r\n") if isinstance(value, str) else value

    @field_validator("key_file", mode="before")
    @classmethod
    def none_if_empty(cls, value: object) -> object:
        return value or None

    @field_validator("log_level", mode="before")
    @classmethod
    def in_capitals(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("log_format", "openai_scaling", mode="before")
    @classmethod
    def in_small_letters(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("webhook_secret")
    @classmethod
    def of_enough_bytes(cls, value: str) -> str:
        """Standard Webhooks says how many. All of them sign; the first is what clients are told."""
        if value and not (listed(value) and all(map(is_webhook_secret, listed(value)))):
            raise ValueError("must be whsec_ and then 24 to 64 random bytes in base64, or several of these with commas")
        return value

    @field_validator("s3_prefix", "s3_endpoint", "s3_region")
    @classmethod
    def of_a_bucket(cls, value: str, info: ValidationInfo) -> str:
        if value and info.data.get("s3_bucket") == "":
            raise ValueError("is of no use without VQD_S3_BUCKET")
        return value

    @field_validator("allowed_hosts", "webhook_hosts")
    @classmethod
    def of_hosts(cls, value: str) -> str:
        return each_like(HOST_PATTERN, value, "a name or an address without port or scheme, or *.example.com")

    @field_validator("cors_origins")
    @classmethod
    def of_origins(cls, value: str) -> str:
        return each_like(ORIGIN_PATTERN, value, "an origin as browsers send it, https://app.example.com[:port], or *")

    @field_validator("public_url")
    @classmethod
    def of_an_origin(cls, value: str) -> str:
        if not PUBLIC_PATTERN.fullmatch(value.lower()):
            raise ValueError("must be http:// or https://, a name or an address, and a port if need be, and no path")
        return value.lower()

    @field_validator("root_path")
    @classmethod
    def of_a_prefix(cls, value: str) -> str:
        if not PREFIX_PATTERN.fullmatch(value):
            raise ValueError(
                "must be empty or begin with / and not end with it, and have letters, digits, . _ ~ - only"
            )
        return value


def listed(value: str) -> tuple[str, ...]:
    """What a setting names that holds several with commas."""
    return tuple(part for piece in value.split(",") if (part := piece.strip()))


def each_like(pattern: re.Pattern[str], value: str, wanted: str) -> str:
    """``value`` in small letters. Raises ValueError naming the first part that is not like ``pattern``."""
    for part in listed(value.lower()):
        if not pattern.fullmatch(part):
            raise ValueError(f"{part!r} is not {wanted}")
    return value.lower()


def read_settings(**overrides: object) -> Settings:
    """The settings, from the environment and ``overrides``. Raises SetupError naming each wrong variable."""
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        raise SetupError("; ".join(complaint(str(e["loc"][0]), e["input"], e["msg"]) for e in error.errors())) from None


def complaint(field: str, value: object, message: str) -> str:
    """What is wrong with a setting, without the value of one that may hold a secret."""
    shown = f"={value!r}" if Settings.model_fields[field].repr else ""
    return f"{variable(field)}{shown}: {message}"


def variable(field: str) -> str:
    return PREFIX + field.upper()


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """A sentence for each variable that has our prefix and is no setting: it is a typing error, most likely."""
    strange = [
        name
        for name in sorted(environment)
        if name.upper().startswith(PREFIX)
        and name.upper().removeprefix(PREFIX).lower() not in Settings.model_fields
        and not SERVICE_LINK.search(f"{name}={environment[name]}")
    ]
    return [f"{name} is no setting and does nothing{suggestion(name)}" for name in strange]


def suggestion(name: str) -> str:
    near = get_close_matches(name.upper().removeprefix(PREFIX).lower(), Settings.model_fields, n=1)
    return f"; did you mean {variable(near[0])}?" if near else ""


def is_webhook_secret(value: str) -> bool:
    try:
        return value.startswith("whsec_") and 24 <= len(b64decode(value.removeprefix("whsec_"), validate=True)) <= 64
    except ValueError:
        return False
