"""``vqd convert``."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from service.models.convert.convert import convert as convert_checkpoint
from service.models.convert.layout import HEADS, Given
from service.models.convert.text import MERGES_FILE
from service.models.convert.understanding import Options

app = typer.Typer()

File = Path | None


@app.command()
def convert(  # noqa: PLR0913, PLR0917  typer makes one option of each
    checkpoint: Annotated[Path, typer.Argument(help="The official .pth, such as ithq_learnable.pth.")],
    to: Annotated[Path, typer.Option(help="Model folder to write.")],
    mapping: Annotated[File, typer.Option(help="Which codes are in use, such as taming_vqvae_2887.pt.")] = None,
    tokenizer: Annotated[
        File, typer.Option(help=f"CLIP's vocabulary: a folder with vocab.json and merges.txt, or {MERGES_FILE}.")
    ] = None,
    config: Annotated[File, typer.Option(help="The training's yaml, to be held against the checkpoint.")] = None,
    labels: Annotated[File, typer.Option(help="Names of the classes, a JSON list.")] = None,
    name: Annotated[str | None, typer.Option(show_default="the checkpoint's", help="The model's name.")] = None,
    heads: Annotated[
        int | None, typer.Option(min=1, show_default=f"the yaml's, or {HEADS}", help="Heads of attention.")
    ] = None,
    grid: Annotated[
        int | None,
        typer.Option(min=1, show_default="the file's or the yaml's, or 32, without text 16", help="Tokens per side."),
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=1, show_default="what the codec makes of the grid", help="Pixels per side.")
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option(
            min=1, show_default="as many as the file has rows, of 1001 the last being the null", help="Classes."
        ),
    ] = None,
) -> None:
    """Turn an official checkpoint into a model folder.

    Everything that the checkpoint tells is read from it. The released models need no option but --mapping (all but
    ITHQ) and --tokenizer (all but ImageNet).
    """
    options = Options(mapping, tokenizer, config, labels, name, Given(heads, grid, size, classes))
    with tqdm(unit="B", unit_scale=True, leave=False, disable=None, file=sys.stderr) as bar:
        for line in convert_checkpoint(checkpoint, to, options, bar):
            bar.clear()
            typer.echo(line)
    typer.echo(f"serve it: vqd up --model {to}")
