"""Parities 2 and 3 of sampling.md: posterior, guidance, truncation and whole runs against diffusers' own code."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from diffusers import VQDiffusionPipeline, VQDiffusionScheduler
from diffusers.schedulers import scheduling_vq_diffusion
from peers.pipeline_folder import save_pipeline
from peers.random_models import RELEASED_FAMILY, guided, only_evaluation, run, step_inputs
from torch import Tensor

from service.diffusion.guidance import normalise, truncate
from service.diffusion.noise import uniforms
from service.diffusion.posterior import posterior
from service.diffusion.schedule import Schedule
from service.diffusion.served import TextStep
from service.models.transformer import VQTransformer

pytestmark = [  # diffusers about itself
    pytest.mark.filterwarnings("ignore:`Transformer2DModelOutput` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Accessing config attribute `num_vector_embeds`:FutureWarning"),
]

CODES, TOKENS, T = 32, 200, 100
PROMPT = "the red cat"


def random_log_p(seed: int, spread: float, codes: int = CODES) -> Tensor:
    """[1, L, K], from flat (spread 0.1) to nearly certain (spread 20)."""
    generator = torch.Generator().manual_seed(seed)
    return normalise(spread * torch.randn(1, TOKENS, codes, generator=generator))


def random_tokens(seed: int, codes: int = CODES) -> Tensor:
    """[1, L], about half of them masked."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, codes, (1, TOKENS), generator=generator)
    return torch.where(torch.rand(1, TOKENS, generator=generator) < 0.5, codes, tokens)


@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0, 20.0])
@pytest.mark.parametrize("codes", [CODES, 4096])
def test_posterior_equals_diffusers_at_every_timestep(spread: float, codes: int) -> None:
    scheduler = VQDiffusionScheduler(num_vec_classes=codes + 1, num_train_timesteps=T)
    schedule = Schedule(T, codes)
    for t in range(T) if codes == CODES else (0, 1, 50, T - 1):
        log_p, tokens, at = random_log_p(t, spread, codes), random_tokens(t, codes), torch.tensor([t])
        ours = posterior(log_p.exp(), tokens, at == 0, schedule(at, at - 1))
        theirs = scheduler.q_posterior(log_p.transpose(1, 2), tokens, t).exp().transpose(1, 2)
        assert float((ours - theirs).abs().max()) <= 1e-4, f"t = {t}"


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.86, 0.94, 0.999])
@pytest.mark.parametrize("spread", [0.1, 2.0, 10.0])
def test_truncation_equals_diffusers(rate: float, spread: float) -> None:
    """Theirs is not normalised; ours is."""
    log_p = random_log_p(3, spread)
    theirs = VQDiffusionPipeline.truncate(None, log_p.transpose(1, 2), rate).transpose(1, 2)
    assert torch.equal(truncate(log_p, torch.tensor([rate])) > -70, theirs > -70)
    expected = theirs.exp() / theirs.exp().sum(-1, keepdim=True)
    torch.testing.assert_close(truncate(log_p, torch.tensor([rate])).exp(), expected, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> VQDiffusionPipeline:
    """Its networks in float64: in float32 two runs of the same sums may differ, by where their memory lies, and then
    a draw that is nearly a tie goes another way.
    """
    pipeline = save_pipeline(tmp_path_factory.mktemp("pipeline"))
    for part in (pipeline.text_encoder, pipeline.transformer, pipeline.learned_classifier_free_sampling_embeddings):
        part.double()
    pipeline.vqvae.double()
    return pipeline


@pytest.fixture
def step(pipeline: VQDiffusionPipeline) -> TextStep:
    transformer = VQTransformer(RELEASED_FAMILY).double().eval()
    transformer.load_state_dict(pipeline.transformer.state_dict())
    return TextStep(transformer, RELEASED_FAMILY.codes, T).eval()


def inverse_cdf(seed: int, evaluations: int) -> Callable[[Tensor, object], Tensor]:
    """In place of the scheduler's Gumbel noise: log p [B, K, L] to one-hot draws with our uniforms, in float64."""
    noise = iter(uniforms(seed, 0, 0, evaluations, RELEASED_FAMILY.tokens))

    def draw(log_p: Tensor, generator: object) -> Tensor:
        cdf = log_p[0].double().exp().cumsum(0)
        u = torch.from_numpy(next(noise)[:, 0]).double()
        return torch.nn.functional.one_hot((cdf <= u * cdf[-1]).sum(0), len(cdf)).T[None].float()

    return draw


def diffusers_grids(pipeline: VQDiffusionPipeline, n: int, scale: float, rate: float) -> list[Tensor]:
    grids: list[Tensor] = []
    pipeline(
        PROMPT,
        num_inference_steps=n,
        guidance_scale=scale,
        truncation_rate=rate,
        output_type="np",
        callback=lambda i, t, sample: grids.append(sample.clone()),
    )
    return grids


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("n", "scale", "rate"), [(100, 5.0, 1.0), (20, 3.0, 1.0), (25, 2.0, 0.86), (30, 1.0, 0.86), (1, 5.0, 1.0)]
)
def test_an_ancestral_run_equals_diffusers(
    pipeline: VQDiffusionPipeline,
    step: TextStep,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    n: int,
    scale: float,
    rate: float,
) -> None:
    """Theirs is the pipeline's own loop; only its random draw is replaced, by one from our uniforms."""
    monkeypatch.setattr(scheduling_vq_diffusion, "gumbel_noised", inverse_cdf(seed, n))
    theirs = diffusers_grids(pipeline, n, scale, rate)
    null, context = pipeline._encode_prompt([PROMPT], 1, True).chunk(2)
    inputs = step_inputs(
        RELEASED_FAMILY,
        context=context,
        null_context=null,
        timestep=list(range(n - 1, -1, -1)),
        timestep_next=list(range(n - 2, -2, -1)),
        reveal=-1,
        guidance=scale,
        truncation=rate,
        uniforms=torch.from_numpy(uniforms(seed, 0, 0, n, RELEASED_FAMILY.tokens))[None],
    )
    # One evaluation a call, to say where two runs part.
    for e, expected in enumerate(theirs):
        inputs["tokens"], _ = run(step, only_evaluation(inputs, e))
        assert torch.equal(inputs["tokens"].long(), expected), f"evaluation {e}"
    assert len(np.unique(inputs["tokens"])) > 5, "the run is too easy to prove anything"
    assert int(inputs["tokens"].max()) < RELEASED_FAMILY.codes


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 5.0])
def test_guidance_equals_the_pipelines_formula(scale: float) -> None:
    null, conditional = random_log_p(1, 2.0), random_log_p(2, 2.0)
    mixed = null + scale * (conditional - null)
    expected = (mixed - mixed.logsumexp(-1, keepdim=True)).exp()
    ours = guided(conditional, null, torch.tensor([scale])).exp()
    assert float((ours - expected).abs().max()) <= 1e-5
