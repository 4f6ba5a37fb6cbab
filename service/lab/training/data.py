"""The emoji data set: pictures and captions from npm packages, and their text states, in one folder.

Pictures: Noto (Apache-2.0 art) and Twemoji (CC-BY 4.0) at 64x64, on white. Names and tags: emojibase (MIT).
"""

import hashlib
import io
import json
import random
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer
from tqdm import tqdm

from service.errors import SetupError
from service.models.card import REFERENCE, load_card
from service.models.folder import load_text
from service.models.text_states import TextStates

PACKAGES = {
    "emoji-datasource-google@16.0.0": "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    "emoji-datasource-twitter@16.0.0": "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
    "emojibase-data@17.0.0": "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
}
STYLES = {
    "google": ("{}, noto style", "{} in Noto style", "Noto {}"),
    "twitter": ("{}, twemoji style", "{} in Twemoji style", "twemoji {}"),
}
SIZE = 32
TEXT_POSITIONS = 24
FORMS = 6
ZERO_WIDTH_JOINER = "200D"
HELD_OUT_PICTURES, HELD_OUT_WORDINGS = 0.1, 0.2
COLOURS = {
    "white": (235, 238, 242),  # first: what is all white has no drawn pixel
    "red": (220, 50, 45),
    "orange": (250, 150, 50),
    "yellow": (250, 205, 70),
    "green": (90, 160, 60),
    "blue": (60, 140, 210),
    "purple": (150, 90, 190),
    "pink": (240, 140, 180),
    "brown": (130, 85, 60),
    "black": (45, 50, 55),
    "grey": (145, 155, 165),
}


def fetch_packages(folder: Path) -> dict[str, Path]:
    """``npm pack`` every package into ``folder`` unless it is there; returns name → archive. Checks every SHA-256."""
    folder.mkdir(parents=True, exist_ok=True)
    archives = {}
    for spec, expected in PACKAGES.items():
        name, _, version = spec.rpartition("@")
        path = folder / f"{name}-{version}.tgz"
        if not path.exists():
            if shutil.which("npm") is None:
                raise SetupError(f"{path} is missing and npm is not on PATH: install npm or put the package there")
            command = ["npm", "pack", "--silent", spec]
            packed = subprocess.run(command, cwd=folder, check=False, stdout=subprocess.DEVNULL)
            if packed.returncode or not path.exists():
                raise SetupError(f"npm pack {spec} failed; is the registry reachable? Or put {path} there")
        actual = hashlib.sha256(path.read_bytes()).hexdigest()
        if actual != expected:
            raise SetupError(f"{path}: SHA-256 is {actual}, expected {expected}; delete it and try again")
        archives[name] = path
    return archives


def read_members(archive: Path, prefix: str) -> dict[str, bytes]:
    """The files of an npm archive below ``package/PREFIX``, by their path after it."""
    start = f"package/{prefix}"
    with tarfile.open(archive) as tar:
        found = {m.name: tar.extractfile(m) for m in tar if m.isfile() and m.name.startswith(start)}
        return {name.removeprefix(start): file.read() for name, file in found.items() if file}


def drawable(entry: dict[str, Any]) -> bool:
    """Base emoji in both sets that are one picture of one thing: no flags, no joined sequences."""
    return (
        entry["has_img_google"]
        and entry["has_img_twitter"]
        and entry["category"] != "Flags"
        and ZERO_WIDTH_JOINER not in entry["unified"].split("-")
    )


def on_white(png: bytes) -> NDArray[np.uint8]:
    """A PNG as uint8 [SIZE, SIZE, 3], composited on white and reduced with Lanczos."""
    picture = Image.open(io.BytesIO(png)).convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    return np.asarray(
        Image.alpha_composite(white, picture).convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    )


def colour_of(pixels: NDArray[np.uint8]) -> str:
    """The name of COLOURS that most pixels of a picture, its white ground aside, are nearest to."""
    drawn = pixels[(pixels < 250).any(-1)].astype(np.float32)
    distances = np.linalg.norm(drawn[:, None] - np.array(list(COLOURS.values()), np.float32), axis=-1)
    counts = np.bincount(distances.argmin(1), minlength=len(COLOURS))
    return list(COLOURS)[counts.argmax()]


def share_of(*key: str) -> float:
    """A number in [0, 1) that depends on nothing but the key: what is held out stays so, whatever else changes."""
    return int.from_bytes(hashlib.sha256("\n".join(key).encode()).digest()[:6], "big") / 2**48


def held_out_style(code: str) -> str | None:
    """The style in which an emoji is kept from training; it is always seen in the others."""
    place = share_of("picture", code) / HELD_OUT_PICTURES
    return list(STYLES)[int(place)] if place < len(STYLES) else None


def held_out_wordings(code: str) -> NDArray[np.bool_]:
    """Which of an emoji's FORMS are kept from training; never the plain name, the first."""
    held = [share_of("wording", code, str(form)) < HELD_OUT_WORDINGS * FORMS / (FORMS - 1) for form in range(FORMS)]
    return np.array([False, *held[1:]])


def caption_forms(label: str, tags: list[str], group: str) -> list[str]:
    """The wordings of one emoji that need no picture, the plain name first. Deterministic in the label."""
    draw = random.Random(label)
    some = draw.sample(tags, min(3, len(tags)))
    others = draw.sample(tags, min(2, len(tags)))
    return [
        label,
        f"{group}: {label}",
        ", ".join([label, *some]),
        ", ".join(tags[:6]) or label,
        " ".join(others) or label,
    ]


def describe(archive: Path) -> dict[str, list[str]]:
    """Code points (``1F34E``, without variation selectors) → caption forms, from emojibase."""
    members = read_members(archive, "en/")
    messages = json.loads(members["messages.json"])
    groups = {g["order"]: g["message"] for g in messages["groups"]}
    data = json.loads(members["data.json"])
    return {
        plain_code(e["hexcode"]): caption_forms(e["label"], e.get("tags", []), groups.get(e.get("group"), "symbols"))
        for e in data
    }


def plain_code(code: str) -> str:
    return "-".join(part for part in code.upper().split("-") if part != "FE0F")


def word(forms: list[str], pixels: NDArray[np.uint8], style: str) -> list[list[str]]:
    """FORMS pairs (wording, the same with its style); the last wording begins with the picture's colour."""
    name, colour = forms[0], colour_of(pixels)
    wordings = [*forms, name if colour in name.split() else f"{colour} {name}"]
    ways = STYLES[style]
    return [[wording, ways[form % len(ways)].format(wording)] for form, wording in enumerate(wordings)]


def collect(archives: dict[str, Path], every: int) -> Iterator[tuple[str, str, NDArray[np.uint8], list[list[str]]]]:
    """(name, category, pixels, [[wording, wording with its style], …]) of one emoji in ``every``, in a fixed order."""
    forms = describe(archives["emojibase-data"])
    for short in STYLES:
        archive = archives[f"emoji-datasource-{short}"]
        entries = json.loads(read_members(archive, "emoji.json")[""])
        images = read_members(archive, f"img/{short}/64/")
        for entry in sorted(filter(drawable, entries), key=lambda e: e["sort_order"])[::every]:
            wordings = forms.get(plain_code(entry["unified"])) or caption_forms(
                entry["name"].lower(), [], entry["category"].lower()
            )
            pixels = on_white(images[entry["image"]])
            yield f"{entry['unified']} {short}", entry["category"], pixels, word(wordings, pixels, short)


def encode_captions(
    captions: list[str], tokenizer: Tokenizer, encoder: TextStates, batch: int = 256
) -> NDArray[np.float16]:
    """Captions to text states FP16 [N, S, D], in the given order.

    Captions of like length are encoded together, without the padding that none of them needs: its states are zero.
    """
    tokenizer.enable_truncation(TEXT_POSITIONS)
    encoded = tokenizer.encode_batch(captions)
    ids = np.array([e.ids for e in encoded], np.int32)
    mask = np.array([e.attention_mask for e in encoded], np.int32)
    lengths = mask.sum(1)
    states = np.zeros((*ids.shape, encoder.null.shape[-1]), np.float16)
    order = np.argsort(lengths, kind="stable")
    for start in tqdm(range(0, len(captions), batch), desc="text states"):
        index = order[start : start + batch]
        used = lengths[index].max()
        with torch.inference_mode():
            part = encoder.encode(torch.from_numpy(ids[index, :used]), torch.from_numpy(mask[index, :used]))
        states[index, :used] = part.half().numpy()
    return states


def prepare_data(out: Path, packages: Path, every: int = 1) -> Path:
    """Write ``captions.json``, ``states.npy`` and ``pictures.npz`` (pixels, names, categories, captions, split).

    The split: ``held_out`` [N] are the pictures, ``held_out_wordings`` [N, FORMS] the wordings kept from training.
    """
    names, categories, pixels, wordings = zip(
        *tqdm(collect(fetch_packages(packages), every), desc="pictures"), strict=True
    )
    captions = sorted({text for picture in wordings for pair in picture for text in pair})
    position = {text: i for i, text in enumerate(captions)}
    index = np.array([[[position[t] for t in pair] for pair in picture] for picture in wordings], np.int32)
    encoder, tokenizer, _ = load_text(REFERENCE, load_card(REFERENCE))
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "states.npy", encode_captions(captions, tokenizer, encoder))
    (out / "captions.json").write_text(json.dumps(captions, ensure_ascii=False, indent=0), encoding="utf-8")
    arrays = {
        "pixels": np.stack(pixels),
        "names": np.array(names),
        "categories": np.array(categories),
        "captions": index,
        "held_out": np.array([held_out_style(code) == style for code, style in map(str.split, names)]),
        "held_out_wordings": np.stack([held_out_wordings(name.split()[0]) for name in names]),
    }
    np.savez_compressed(out / "pictures.npz", **arrays)
    return out
