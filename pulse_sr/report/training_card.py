"""The model card of a training run: `README.md` of its folder.

Returns text; nothing is read or written here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pulse_sr.metrics.feature_networks import NETWORKS
from pulse_sr.metrics.image_set import FRECHETS, INCEPTION_FRECHET, SPREAD

#: Fewer different training images than this: the card says that the prior knows little else.
_FEW_IMAGES = 1000
_NOT_SETTINGS = ("network", "images", "seconds", "architecture")
_NOT_DATA = ("training", "architecture", "name", "data", "licence", "alignment", "use")


@dataclass(frozen=True)
class Measured:
    """Scores of one set of images, by name.

    Attributes:
        what: the name of the column, with the number of images.
        values: score by its exact name.
    """

    what: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Memorised:
    """The check for copies; the fields of `metrics.neighbours.Memorisation` and their basis.

    Attributes:
        share: of the samples, nearer to a training image than 95 % of `others` are.
        ratio: median distance of the samples over that of `others`.
        others: what the samples are compared with.
    """

    share: float
    ratio: float
    others: str


@dataclass(frozen=True)
class CardFacts:
    """All that the card says.

    Attributes:
        name: of the prior.
        architecture: "stylegan2" or "fastgan".
        resolution: R.
        latent_dim: width of a latent.
        parameters: how many numbers the generator has.
        gflop: of one image, a multiplication and an addition counted as two.
        card: of the prior file: data, licence, framing, training.
        training_images: how many there are.
        images_shown, seconds: how long it was trained.
        device: name of the device.
        versions: of what took part, by name.
        command: the command line; empty if it is not known.
        scores: of the last scored samples, then of the best ones if those are others.
        floor: of other real images, if there were any.
        memorised: the check for copies, if there was one.
        pictures: (file name, caption), in order.
    """

    name: str
    architecture: str
    resolution: int
    latent_dim: int
    parameters: int
    gflop: float
    card: Mapping[str, Any]
    training_images: int
    images_shown: int
    seconds: float
    device: str
    versions: Mapping[str, str]
    command: str = ""
    scores: Sequence[Measured] = ()
    floor: Measured | None = None
    memorised: Memorised | None = None
    pictures: Sequence[tuple[str, str]] = field(default=())


def render_card(facts: CardFacts) -> str:
    """Returns the model card as Markdown."""
    sections = [
        f"# Model card: `{facts.name}`",
        *_pictures(facts.pictures[:1]),
        _table(facts),
        *_settings(facts),
        *_data(facts),
        *_scores(facts),
        *_memorisation(facts.memorised),
        _use(facts),
        _limits(facts),
        *_pictures(facts.pictures[1:]),
    ]
    return "\n\n".join(sections) + "\n"


def _pictures(pictures: Sequence[tuple[str, str]]) -> list[str]:
    return [f"![{file}]({file})\n\n*{caption}.*" for file, caption in pictures]


def _table(facts: CardFacts) -> str:
    architecture = {"stylegan2": "StyleGAN2 skip generator", "fastgan": "FastGAN generator"}
    what = (
        f"{architecture.get(facts.architecture, facts.architecture)}, "
        f"{facts.resolution}x{facts.resolution} px, latent width {facts.latent_dim}, "
        f"{facts.parameters / 1e6:.3g} M parameters, {facts.gflop:.2g} GFLOP an image"
    )
    rows = [
        ("what it is", what),
        ("made by", f"`{facts.command}`" if facts.command else "`pulse-sr train-prior`"),
        ("training", f"{facts.images_shown:,} images shown in {_duration(facts.seconds)}"),
        ("on", f"{facts.device}; {_joined(facts.versions)}"),
        ("data", str(facts.card.get("data", f"{facts.training_images:,} images"))),
        ("licence", _licence(facts.card)),
        ("framing", _framing(facts.card)),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {a} | {_cell(b)} |" for a, b in rows)])


def _settings(facts: CardFacts) -> list[str]:
    training = facts.card.get("training", {})
    settings = {k: v for k, v in training.items() if k not in _NOT_SETTINGS}
    lines = [f"`{name}` {_value(value)}" for name, value in settings.items()]
    network = training.get("network", {})
    lines += [f"`network.{name}` {_value(value)}" for name, value in network.items()]
    return ["Settings: " + ", ".join(lines) + "."] if lines else []


def _data(facts: CardFacts) -> list[str]:
    rest = {k: v for k, v in facts.card.items() if k not in _NOT_DATA and isinstance(v, str)}
    if not rest:
        return []
    return ["## Data", "\n".join(f"- {name}: {text}" for name, text in rest.items())]


def _scores(facts: CardFacts) -> list[str]:
    if not facts.scores:
        return ["## Scores", "Not measured."]
    names = list(facts.scores[0].values)
    columns = [*facts.scores, *([facts.floor] if facts.floor else [])]
    heading = ["| | " + " | ".join(each.what for each in columns) + " |"]
    heading.append("|---" * (1 + len(columns)) + "|")
    lines = [
        f"| {name} | " + " | ".join(_number(each.values.get(name)) for each in columns) + " |"
        for name in names
    ]
    basis = (
        f"The features are those of {_judge(names)} (ImageNet): the numbers compare with nothing "
        "but themselves, taken with the same numbers of images."
    )
    if facts.card.get("trained_with"):
        basis += (
            f" The prior learned from features of {', '.join(facts.card['trained_with'])}, "
            "which judges nothing here."
        )
    if INCEPTION_FRECHET in names:
        basis += " FID and KID come from the Inception file that the user gave."
    if facts.floor is None:
        basis += " There were no other images for a floor: give some with --held-back."
    else:
        basis += " The last column is the floor: other real images against the same training ones."
    return ["## Scores", basis, "\n".join([*heading, *lines])]


def _judge(names: Sequence[str]) -> str:
    """The network that the names of scores speak of."""
    networks = [name for name, frechet in FRECHETS.items() if frechet in names]
    return NETWORKS[networks[0]].title if networks else "no network"


def _memorisation(found: Memorised | None) -> list[str]:
    if found is None:
        return ["## Memorisation", "Not measured: the samples may be copies of training images."]
    if found.share > 0.5 or found.ratio < 0.5:
        verdict = "Many samples are close to copies of training images."
    elif found.share > 0.15:
        verdict = "Some samples are nearer to training images than they should be: look at them."
    else:
        verdict = "No sign of copies by this measure."
    text = (
        f"{verdict} {found.share:.1%} of the samples are nearer to a training image than 95 % of "
        f"{found.others} are (5 % would be expected); the median distance is {found.ratio:.2f} "
        "times theirs. Distances are root mean squares of pixels, mirrored images included. It is "
        "a weak check: a copy that is shifted or recoloured is missed, and samples lie a little "
        "nearer because they are smoother."
    )
    return ["## Memorisation", text]


def _use(facts: CardFacts) -> str:
    licence = ""
    if facts.card.get("licence", "unstated") == "unstated":
        licence = (
            "\n\nNo licence was stated (`--licence`): settle what the training images permit "
            "before you pass these weights on."
        )
    return (
        "## Use\n\n"
        f"`pulse-sr run face.png --prior FOLDER`, with the folder of this file. {_purpose(facts)} "
        "Never identification: a result is one of many images that fit the input, not the person "
        f"or thing in it.{licence}"
    )


def _purpose(facts: CardFacts) -> str:
    use = str(facts.card.get("use", "plausible reconstructions for demonstration and research"))
    return f"{use[:1].upper()}{use[1:].rstrip('.')}."


def _limits(facts: CardFacts) -> str:
    lines = [
        f"It knows {facts.training_images:,} images and what lies between them. What is rare or "
        "missing there comes out worst, and a search draws inputs towards what it knows.",
        "Quality by group (age, skin, sex, framing) was not measured.",
        f"Details below a pixel of {facts.resolution} px do not exist for it.",
    ]
    if facts.training_images < _FEW_IMAGES:
        lines.append(f"{facts.training_images} images are few: expect little variety, and copies.")
    spread = facts.scores[0].values.get(SPREAD) if facts.scores else None
    if spread is not None and spread < 0.7:
        lines.append(
            f"Its samples differ from each other only {spread:.2f} times as much as the training "
            "images do: part of the variety is lost."
        )
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _licence(card: Mapping[str, Any]) -> str:
    licence = str(card.get("licence", "unstated"))
    return licence if licence != "unstated" else "unstated: see below"


def _framing(card: Mapping[str, Any]) -> str:
    framing = card.get("alignment")
    if not isinstance(framing, Mapping):
        return "not known: inputs have to be framed as the training images are"
    return str(framing.get("name") or _value(framing.get("template", framing)))


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 1:
        return f"{seconds:.0f} seconds"
    return f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"


def _joined(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{name} {_value(each)}" for name, each in value.items())
    if isinstance(value, (list, tuple)):
        return "(" + ", ".join(_value(each) for each in value) + ")"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if value != "" else "none"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
