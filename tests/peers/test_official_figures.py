"""Every array of the official figures, against what a converted folder gives through the service's own modules."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from peers.official import FAMILIES, FIXTURES, MISSING, Port
from torch import Tensor

from service.diffusion.guidance import power
from service.diffusion.purity import purity_of, sharpness
from service.engine.prompts import PromptTokenizer

NEAR = 2e-6
"""The official code's nearest miss, below which a port may decide otherwise."""
GIVEN = {
    "tokens|timestep|step_(tokens|timestep|count|uniforms)|run_.*_(timestep|count|uniforms|settings)": "given to both",
    "guidance_scale|truncation_rate|purity_r|label|decode_tokens|encode_image": "given to both",
    ".*_margin": "how near a decision was: read where tokens differ",
    "encode_is_argmax_of_proj": "says how encode_tokens were made",
}
"""Arrays that there is nothing to compare with, and why."""
Check = Callable[[Port, str], None]
CHECKS: dict[str, Check] = {}


def compares(pattern: str) -> Callable[[Check], Check]:
    def register(check: Check) -> Check:
        CHECKS[pattern] = check
        return check

    return register


def keys() -> list[tuple[str, str]]:
    found = []
    for family in FAMILIES:
        with np.load(FIXTURES / family / "golden.npz") as arrays:
            found += [(family, key) for key in arrays.files]
    return [pair for pair in found if not any(re.fullmatch(pattern, pair[1]) for pattern in GIVEN)]


@pytest.fixture(scope="module")
def port_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Port]:
    ports: dict[str, Port] = {}

    def find(family: str) -> Port:
        if family not in ports:
            ports[family] = Port(family, tmp_path_factory.mktemp("official") / family)
        return ports[family]

    return find


def test_the_official_checkpoints_are_there() -> None:
    """A clone of the repository alone has none; then the tests below have nothing to run on."""
    if not FAMILIES:
        pytest.skip(MISSING)
    assert len(FAMILIES) >= 4


@pytest.mark.parametrize(("family", "key"), keys())
def test_the_figure_is_the_official_one(port_of: Callable[[str], Port], family: str, key: str) -> None:
    checks = [check for pattern, check in CHECKS.items() if re.fullmatch(pattern, key)]
    assert len(checks) == 1, f"nothing is compared with {key}, and GIVEN does not say why"
    checks[0](port_of(family), key)


def close(ours: Tensor, golden: Tensor, tolerance: float) -> None:
    assert ours.shape == golden.shape
    assert float((ours.float() - golden.float()).abs().max()) <= tolerance


@compares("prompt_ids|prompt_mask")
def prompts(port: Port, key: str) -> None:
    found = [port.model.tokenizer.encode(prompt) for prompt in port.prompts["prompts"]]  # type: ignore[union-attr]
    ours = [one.ids if key == "prompt_ids" else one.attention_mask for one in found]
    assert torch.equal(torch.tensor(ours), port.golden[key].long())


@compares("odd_ids|odd_length")
def odd_prompts(port: Port, key: str) -> None:
    prompts = PromptTokenizer(port.model.tokenizer, port.model.info)  # type: ignore[arg-type]
    for prompt, golden in zip(port.prompts["odd"], port.golden[key].tolist(), strict=True):
        one = prompts.encode("prompt", prompts.clean(prompt), truncate=True)
        assert golden == (one.ids.tolist() if key == "odd_ids" else int(one.mask.sum())), prompt


@compares("condition|condition_float32")
def text_states(port: Port, key: str) -> None:
    """The official code computes in float16, and so do we where it is the reference."""
    states = port.model.text.encode(port.golden["prompt_ids"], port.golden["prompt_mask"].int())  # type: ignore[union-attr]
    close(states, port.golden[key], 1e-5 if key == "condition_float32" else 2e-3)


@compares("null|null_float32")
def null_states(port: Port, key: str) -> None:
    learned = "null_float32" not in port.golden
    close(port.model.text.null, port.golden[key], 1e-6 if learned or key == "null_float32" else 2e-3)  # type: ignore[union-attr]


@compares("logits|logits_null")
def logits(port: Port, key: str) -> None:
    close(port.both_logits[key], port.golden[key], 1e-4)


@compares("log_p|log_p_null")
def log_probabilities(port: Port, key: str) -> None:
    ours = port.both_logits["logits" if key == "log_p" else "logits_null"].log_softmax(-1).clamp(-70, 0)
    close(ours, port.golden[key], 1e-4)


@compares("log_p_guided")
def guided(port: Port, key: str) -> None:
    close(port.log_p(guided=True).exp(), port.golden[key].exp(), 1e-5)


@compares("log_p_truncated|log_p_guided_truncated")
def truncated(port: Port, key: str) -> None:
    """Official truncation does not normalise again."""
    ours = port.log_p("guided" in key, truncated=True)
    assert torch.equal(ours > -70, port.golden[key] > -70), "the same codes are left"
    close(ours.exp(), port.golden[key].softmax(-1), 1e-5)


@compares("posterior|posterior_guided_truncated")
def posteriors(port: Port, key: str) -> None:
    if key == "posterior":
        close(port.posteriors(port.log_p()), port.golden[key], 1e-4)
        return
    given = port.golden["log_p_guided_truncated" if port.guided else "log_p_truncated"]
    mass = given.exp().sum(-1, keepdim=True)
    close(port.posteriors(port.log_p(port.guided, truncated=True)) * mass, port.golden[key], 1e-4)


@compares("rule[12]_.*_prob|rule[12]_.*_weight")
def purity(port: Port, key: str) -> None:
    """Official purity is the maximum of the truncated p before that is normalised again; the service's is after."""
    rule, variant = re.fullmatch("(rule.)_(.*)_(?:prob|weight)", key).groups()  # type: ignore[union-attr]
    logits, is_guided = port.step_logits(), "guided" in variant
    weight = purity_of(port.predicted(logits, is_guided, truncated=False))
    if key.endswith("_prob"):
        r = torch.full((len(weight),), port.number("purity_r") if rule == "rule2" else 0.0)
        log_p = port.predicted(logits, is_guided, "truncated" in variant)
        close(power(log_p, sharpness(weight, r, torch.zeros_like(r))), port.golden[key], 2e-5)
    else:
        weight = weight / weight.max(-1, keepdim=True).values if rule == "rule2" else torch.ones_like(weight)
        close(weight * (port.golden["step_tokens"] == port.model.info.codes), port.golden[key], 1e-5)


@compares("rule[12]_.*_sampled")
def counts(port: Port, key: str) -> None:
    rule, variant = re.fullmatch("(rule.)_(.*)_sampled", key).groups()  # type: ignore[union-attr]
    before = port.golden["step_tokens"] == port.model.info.codes
    after = port.step(rule, variant) == port.model.info.codes
    assert (before.sum(1) - after.sum(1)).tolist() == port.golden[key].tolist()


def same_tokens(ours: Tensor, port: Port, key: str) -> None:
    golden, margin = port.golden[key], port.golden[key.replace("_tokens", "_margin")].min()
    if not torch.equal(ours, golden):
        print(f"{key}: {int((ours != golden).sum())} tokens differ; the official code's nearest miss was {margin:.1e}")
        assert margin < NEAR


@compares("rule[12]_.*_tokens")
def single_steps(port: Port, key: str) -> None:
    rule, variant = re.fullmatch("(rule.)_(.*)_tokens", key).groups()  # type: ignore[union-attr]
    same_tokens(port.step(rule, variant), port, key)


@compares("run_.*_tokens")
def whole_runs(port: Port, key: str) -> None:
    same_tokens(port.run(key.removeprefix("run_").removesuffix("_tokens")), port, key)


@compares("decode_pixels|decode_uint8")
def pictures(port: Port, key: str) -> None:
    """The official code cuts to whole numbers, the service rounds."""
    pixels = port.model.vqvae.decode(port.golden["decode_tokens"].long())
    ours = ((pixels.clamp(-1, 1) + 1) / 2 * 255).permute(0, 2, 3, 1)
    close(ours if key == "decode_pixels" else ours.floor(), port.golden[key], 0.01 if key == "decode_pixels" else 1)


@compares("encode_tokens")
def tokens_of_pictures(port: Port, key: str) -> None:
    pixels = port.golden["encode_image"].permute(0, 3, 1, 2) / 127.5 - 1
    assert torch.equal(port.model.vqvae.encode(pixels).int(), port.golden[key].int())
