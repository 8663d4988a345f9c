"""What stands where on the page; `handlers` says what happens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from pulse_sr.config import METHODS
from pulse_sr.operators.spec import AUTO
from pulse_sr.priors.base import Prior
from pulse_sr.web import markup
from pulse_sr.web.looking import sides_of
from pulse_sr.web.options import ServeOptions

STYLE = Path(__file__).with_name("style.css")
#: What a visitor begins with.
SAMPLES = 4

#: How small pictures come about. None names a file: a visitor must not choose files of the server.
OPERATORS = {
    "bicubic": "Bicubic (most programs)",
    "area": "Area average (thumbnails, sensors)",
    "pillow:lanczos": "Lanczos",
    "gaussian:1.6": "Blurred, then made small",
    "bicubic|noise:0.02": "Bicubic, then noise",
    "bicubic|jpeg:75": "Bicubic, then a JPEG file",
    "bicubic|gray": "Bicubic, without colours",
    AUTO: "Unknown: find out",
}
_METHODS = {
    "phased": "Phased: fast, close to the prior",
    "pulse": "PULSE: the original method",
    "ilo": "ILO: also inside the network, slower",
    "langevin": "Langevin: spread like a posterior, several minutes",
}

_FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")


def theme() -> gr.themes.Base:
    """Returns the look of the page, with the fonts of the system alone."""
    return gr.themes.Default(
        primary_hue="blue",
        neutral_hue="slate",
        radius_size="md",
        font=[gr.themes.Font(name) for name in _FONT],
        font_mono=[gr.themes.Font(name) for name in _MONO],
    )


@dataclass(frozen=True)
class Components:
    """The parts of the page that change."""

    upload: gr.File
    seen: gr.HTML
    preview: gr.Image
    faces: gr.CheckboxGroup
    side: gr.Dropdown
    operator: gr.Dropdown
    samples: gr.Slider
    method: gr.Radio
    seed: gr.Number
    find: gr.Button
    stop: gr.Button
    status: gr.HTML
    results: gr.Column
    face: gr.Radio
    slider: gr.ImageSlider
    about: gr.HTML
    gallery: gr.Gallery
    mean: gr.Image
    disagreement: gr.Image
    supervised: gr.Image
    photo: gr.ImageSlider
    download: gr.DownloadButton


def lay_out(prior: Prior, options: ServeOptions) -> Components:
    """Builds the page inside a `gr.Blocks`."""
    gr.HTML(markup.HEADER)
    gr.HTML(markup.NOTICE, elem_id="notice")
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=320):
            asked = _asked(prior, options)
        with gr.Column(scale=7, min_width=360):
            shown = _shown()
    gr.HTML(markup.PRIVACY)
    return Components(**asked, **shown)


def _asked(prior: Prior, options: ServeOptions) -> dict[str, gr.components.Component]:
    """What a visitor gives and chooses."""
    upload = gr.File(
        label="Photo or small face",
        type="filepath",
        height=148,
        elem_id="upload",
    )
    seen = gr.HTML(visible=False)
    preview = gr.Image(
        label="Your picture",
        visible=False,
        interactive=False,
        show_label=False,
        buttons=[],
        elem_id="preview",
    )
    faces = gr.CheckboxGroup(label="Faces to search", visible=False, elem_id="faces")
    sides = [("As the picture is", 0)] + [(f"{side} px", side) for side in sides_of(prior)]
    with gr.Row():
        side = gr.Dropdown(sides, value=0, label="Low-res size", min_width=130, elem_id="side")
        operator = gr.Dropdown(
            [(title, spec) for spec, title in OPERATORS.items()],
            value="bicubic",
            label="How it was made small",
            min_width=170,
            elem_id="operator",
        )
    samples = gr.Slider(
        1,
        options.max_samples,
        value=min(SAMPLES, options.max_samples),
        step=1,
        label="Samples: different faces for the same pixels",
        elem_id="samples",
    )
    with gr.Accordion("Method and seed", open=False):
        method = gr.Radio(
            [(_METHODS[name], name) for name in METHODS], value="phased", label="Method"
        )
        seed = gr.Number(0, label="Seed: the same seed gives the same faces", precision=0, minimum=0)
    with gr.Row(elem_id="actions"):
        find = gr.Button("Find faces", variant="primary", interactive=False, elem_id="find")
        stop = gr.Button("Stop", visible=False, variant="stop", elem_id="stop")
    return {
        "upload": upload,
        "seen": seen,
        "preview": preview,
        "faces": faces,
        "side": side,
        "operator": operator,
        "samples": samples,
        "method": method,
        "seed": seed,
        "find": find,
        "stop": stop,
    }


def _shown() -> dict[str, gr.components.Component | gr.Column]:
    """What a visitor gets."""
    status = gr.HTML(markup.EMPTY, elem_id="status")
    with gr.Column(visible=False, elem_id="results") as results:
        face = gr.Radio(label="Face", visible=False, elem_id="face")
        with gr.Row(equal_height=False):
            with gr.Column(scale=6, min_width=300):
                slider = gr.ImageSlider(
                    label="Before: bicubic. After: the sample that you choose",
                    interactive=False,
                    buttons=["fullscreen"],
                    max_height=460,
                    elem_id="slider",
                )
            with gr.Column(scale=5, min_width=260):
                gallery = gr.Gallery(
                    label="Samples, with their match to the input (LR-PSNR)",
                    columns=2,
                    object_fit="contain",
                    allow_preview=False,
                    interactive=False,
                    buttons=[],
                    elem_id="gallery",
                )
        with gr.Row():
            mean = _picture("Mean of the samples", "mean")
            disagreement = _picture("Where the samples disagree", "disagreement")
            supervised = _picture("Supervised network", "supervised")
        photo = gr.ImageSlider(
            label="The whole photo, enlarged: before and after",
            interactive=False,
            buttons=["fullscreen"],
            visible=False,
            max_height=640,
            elem_id="photo",
        )
        about = gr.HTML()
        download = gr.DownloadButton("Download all files (ZIP)", elem_id="download")
    return {
        "status": status,
        "results": results,
        "face": face,
        "slider": slider,
        "about": about,
        "gallery": gallery,
        "mean": mean,
        "disagreement": disagreement,
        "supervised": supervised,
        "photo": photo,
        "download": download,
    }


def _picture(label: str, name: str) -> gr.Image:
    return gr.Image(
        label=label,
        interactive=False,
        buttons=["fullscreen"],
        min_width=160,
        elem_id=name,
    )
