"""The model card of a training run: `README.md` of its folder.

Returns text; nothing is read or written here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pulse_sr.metrics.feature_networks import NETWORKS
from pulse_sr.metrics.image_set import FRECHETS, INCEPTION_FRECHET, SPREAD
from pulse_sr.report.templates import card_environment

_USE = "plausible reconstructions for demonstration and research"
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
    card = facts.card
    training = card.get("training", {})
    settings = {k: v for k, v in training.items() if k not in _NOT_SETTINGS}
    settings |= {f"network.{k}": v for k, v in training.get("network", {}).items()}
    names = list(facts.scores[0].values) if facts.scores else []
    judges = [name for name, frechet in FRECHETS.items() if frechet in names]
    text = (
        card_environment()
        .get_template("card.md")
        .render(
            facts=facts,
            value=_value,
            duration=_duration,
            unstated=card.get("licence", "unstated") == "unstated",
            framing=_framing(card.get("alignment")),
            settings=settings,
            about={k: v for k, v in card.items() if k not in _NOT_DATA and isinstance(v, str)},
            judge=NETWORKS[judges[0]].title if judges else "no network",
            inception=INCEPTION_FRECHET,
            use=str(card.get("use", _USE)).rstrip("."),
            spread=facts.scores[0].values.get(SPREAD) if facts.scores else None,
        )
    )
    return text.rstrip("\n") + "\n"


def _framing(framing: object) -> str:
    if not isinstance(framing, Mapping):
        return "not known: inputs have to be framed as the training images are"
    return str(framing.get("name") or _value(framing.get("template", framing)))


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 1:
        return f"{seconds:.0f} seconds"
    return f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{name} {_value(each)}" for name, each in value.items())
    if isinstance(value, (list, tuple)):
        return "(" + ", ".join(_value(each) for each in value) + ")"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if value != "" else "none"
