"""The request that makes one picture of a job again, all by itself."""

from typing import Any

from service.diffusion.samplers import OWN, SAMPLERS
from service.messages import Job, Parameters

Fields = dict[str, Any]


def parameters_of(parameters: Parameters) -> Fields:
    """``parameters`` in JSON, without what their sampler has no use for: a request takes them all."""
    sampler = SAMPLERS.get(parameters.sampler)  # one of a later version keeps everything
    useless = OWN - sampler.own if sampler else set()
    used = {"image_index": parameters.image_index, **parameters.model_dump(mode="json")}
    return {name: value for name, value in used.items() if value is not None and name not in useless}


def edit_of(job: Job) -> Fields:
    """What the pictures begin with; the files themselves are not kept, and must be sent again."""
    edit = job.edit
    if edit is None:
        return {}
    told: Fields = {"pinned": edit.pinned and list(edit.pinned)}
    if edit.image_sha256:
        told |= {"image_sha256": edit.image_sha256, "mask_sha256": edit.mask_sha256, "strength": edit.strength}
    return told | ({"composite": edit.composite} if edit.mask_sha256 else {})


def request_of(job: Job, place: int) -> Fields:
    """For the picture in this ``place`` of the job; what is left out would change nothing in its file."""
    alone = {"n": 1, "image_index": job.parameters.image_index + place}
    asked = {
        "model": job.model,
        "prompt": job.prompt or None,
        "label": job.label,
        "negative_prompt": job.negative_prompt,
        "truncate_prompt": job.truncate_prompt or None,
        "metadata": None if job.metadata else False,
        **edit_of(job),
    }
    given = {name: value for name, value in asked.items() if value is not None}
    return given | parameters_of(job.parameters) | alone
