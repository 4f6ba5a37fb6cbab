"""The picture that a job starts from, as pixels, and what of it comes out again."""

import io

import numpy as np
from PIL import Image

from service.errors import InferenceFailed
from service.triton.contract import UInt8
from service.worker.job import HeldJob


def read_image(file: bytes) -> UInt8:
    """A file as the gateway writes it → [H, W, 3]. Raises InferenceFailed."""
    try:
        return np.array(Image.open(io.BytesIO(file), formats=["PNG"]).convert("RGB"))
    except OSError as error:
        raise InferenceFailed(f"the picture that the job starts from cannot be read: {error}") from error


def put_back(drawn: UInt8, original: UInt8, mask: bytes) -> UInt8:
    """``drawn`` where the mask has a bit, and ``original`` elsewhere; both [H, W, 3]."""
    height, width, _ = drawn.shape
    bits = np.unpackbits(np.frombuffer(mask, np.uint8), count=height * width)
    return np.where(bits.reshape(height, width, 1) == 1, drawn, original)


def finished(job: HeldJob, drawn: UInt8) -> UInt8:
    """A decoded picture [H, W, 3] as the client gets it: what the mask keeps of the original is put back."""
    edit = job.lease.job.edit
    if edit is None or not edit.composite or job.original is None:
        return drawn
    return put_back(drawn, job.original, job.lease.pixels.mask)
