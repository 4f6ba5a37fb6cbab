"""Quality against cost: made-up records whose differences are known, and the section and the plot made of them."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from service.diffusion.samplers import make_plan
from service.errors import SetupError
from service.lab.evaluation.cost import BASE, BEGIN, CLOSE, END, FEW, LINES, difference, late, stages, write_cost
from service.lab.evaluation.questions import Setting, key, scheduled
from service.lab.evaluation.run import run_cost
from service.lab.evaluation.tables import Records
from service.messages import Parameters
from service.models.card import REFERENCE


def record(chosen: Setting, passes: int, found: float, dtype: str = "bf16") -> dict[str, Any]:
    """A share of 40 prompts per group is found at once in each of two pictures, the rest never."""
    ranks = [[0 if i < 40 * found else 9 for i in range(40)]] * 2
    about = {"model": "1" * 64, "dtype": dtype, "per_group": 40, "seeds": 2}
    made = {"passes": passes, "ranks": {"held out": ranks, "seen": ranks}, "frechet": [0.2, 0.1, 0.3]}
    return {**about, "setting": asdict(chosen), **made}


CHEAP = scheduled("interval", 8)
MADE = [record(BASE, 32, 0.5), record(CHEAP, 12, 0.4), record(BASE, 32, 0.525, "fp32")]


def test_a_difference_is_of_the_same_prompts() -> None:
    records = Records(MADE[:2])
    against = difference((records, CHEAP), (records, BASE), 1)
    assert against.mean == pytest.approx(-10)
    assert -18 < against.low < -10 < against.high < -3, "4 of 40 prompts differ, whatever the others are"
    assert difference((records, BASE), (records, BASE), 1) == (0, 0, 0)


def test_the_section_has_each_dtype_and_the_two_against_each_other(tmp_path: Path) -> None:
    page, picture = tmp_path / "quality.md", tmp_path / "quality-cost.png"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_cost([{"codec": True}, *MADE], page, picture)
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    assert "| constant | 16 | 32 | 50.0 |  |  | 0.200 (0.100-0.300) |" in text
    assert "| interval, from 1/2 | 8 | 12 | 40.0 | -10.0 (-" in text
    assert "In bf16, 2 pictures of each prompt:" in text
    assert "In fp32, 2 pictures of each prompt:" in text
    assert "- bf16 against fp32, 2 pictures, guidance constant, 16 evaluations: top-1 -2.5 (-" in text
    assert "- bf16 against fp32, 2 pictures, all of these: top-1 -2.5 (-" in text
    assert picture.stat().st_size > 1000
    write_cost(MADE, page, picture)
    assert page.read_text() == text
    page.write_text("no place")
    with pytest.raises(SetupError, match="has no place for the tables"):
        write_cost(MADE, page, picture)


def test_every_setting_takes_the_evaluations_that_its_row_says() -> None:
    usual = {"seed": 0, "n": 1, "format": "png", "guidance_schedule": "constant"}
    for line in LINES.values():
        for steps, chosen in line.items():
            assert len(make_plan(Parameters.model_validate({**usual, **chosen.fields}), 64, 100)) == steps
    plans = [
        make_plan(Parameters.model_validate({**usual, **chosen.fields}), 64, 100)
        for chosen in (late(16, 0.5), scheduled("interval"))
    ]
    assert plans[0].weights.tolist() == plans[1].weights.tolist()
    assert [plan.passes for plan in plans] == [24, 24]


def test_float32_is_measured_where_bf16_is() -> None:
    first, again = ([key(chosen) for chosen in settings] for settings in stages("bf16").values())
    assert len(first) == len({*first})
    assert key(BASE) in again
    assert {*again} < {*first}
    assert stages("fp32") == {2: FEW, 6: CLOSE}


def test_the_command_needs_data_to_measure_and_records_to_write(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="holds no pictures: run `vqd train data"):
        list(run_cost(REFERENCE, tmp_path, tmp_path / "q.jsonl", tables=False))
    with pytest.raises(SetupError, match=r"q-cost\.jsonl holds no records"):
        list(run_cost(REFERENCE, tmp_path, tmp_path / "q.jsonl", tables=True))
