"""Pixels to encoded files."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.engine.grid import tokens_sha256
from service.messages import ImageFormat
from service.provenance.origin import Origin, saved_with
from service.provenance.request import request_of
from service.telemetry.metrics import running_version
from service.worker.job import JobRow
from service.worker.original import finished

OPTIONS: dict[ImageFormat, dict[str, int | bool]] = {
    ImageFormat.PNG: {"optimize": False},
    ImageFormat.JPEG: {"quality": 92, "subsampling": 0},
    ImageFormat.WEBP: {"quality": 92, "method": 4},
}


def encode_image(pixels: NDArray[np.uint8], image_format: ImageFormat, origin: Origin | None = None) -> bytes:
    """UINT8 [H, W, 3] as a PNG, JPEG or WebP file, which says what it is."""
    buffer = io.BytesIO()
    options = {**OPTIONS[image_format], **saved_with(origin, image_format)}
    Image.fromarray(pixels).save(buffer, image_format.value, **options)
    return buffer.getvalue()


def origin_of(row: JobRow) -> Origin | None:
    """What the file of a finished row says of itself; None when it is to say nothing."""
    job, info = row.job.lease.job, row.job.info
    if not job.metadata:
        return None
    return Origin(
        version=running_version(),
        model_sha256=info.sha256,
        dtype=info.dtype,
        backend=info.backend,
        tokens_sha256=tokens_sha256(row.tokens),
        request=request_of(job, row.image - job.parameters.image_index),
    )


def encode_row(pixels: NDArray[np.uint8], row: JobRow) -> bytes:
    return encode_image(finished(row.job, pixels), row.parameters.format, origin_of(row))
