"""What stands where on the page; `handlers` says what happens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from pulse_sr.config import METHODS
from pulse_sr.operators.spec import AUTO
from pulse_sr.priors.base import Prior
from pulse_sr.web import markup
from pulse_sr.web.looking import sides_of
from pulse_sr.web.options import ServeOptions

STYLE, _LIMIT = (Path(__file__).with_name(name) for name in ("style.css", "limit.js"))
#: What a visitor begins with.
SAMPLES = 4
#: Height of the large picture in px.
_LARGE = 420

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


def script(options: ServeOptions) -> str:
    """Returns the only script of our own, with the limit of uploads."""
    code = _LIMIT.read_text(encoding="utf-8")
    return f"<script>{code.replace('MOST_BYTES', str(options.upload_bytes))}</script>"


def _in_cache(payload: gr.FileData | None) -> str | None:
    """The path of an upload in gradio's cache; gradio has checked that it lies there."""
    return None if payload is None else payload.path


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
    pair: gr.HTML
    slider: gr.ImageSlider
    about: gr.HTML
    gallery: gr.Gallery
    mean: gr.Image
    disagreement: gr.Image
    beside: gr.Column
    network: gr.HTML
    supervised: gr.Image
    whole: gr.Column
    photo: gr.ImageSlider
    download: gr.DownloadButton


def lay_out(prior: Prior, options: ServeOptions) -> Components:
    """Builds the page inside a `gr.Blocks`."""
    gr.HTML(markup.HEADER, padding=False)
    gr.HTML(markup.NOTICE, padding=False, elem_id="notice")
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=320):
            asked = _asked(prior, options)
        with gr.Column(scale=7, min_width=360):
            shown = _shown()
    gr.HTML(markup.PRIVACY, padding=False)
    return Components(**asked, **shown)


def _asked(prior: Prior, options: ServeOptions) -> dict[str, Any]:
    """What a visitor gives and chooses."""
    upload = gr.File(
        label="Photo or small face",
        type="filepath",
        height=140,
        elem_id="upload",
    )
    # Its own way leaves an empty file in the cache for each upload.
    vars(upload)["preprocess"] = _in_cache
    gr.HTML(markup.TOO_LARGE, padding=False, elem_id="too-large")
    seen = gr.HTML(visible=False, padding=False)
    preview = gr.Image(
        label="Your picture",
        visible=False,
        interactive=False,
        show_label=False,
        buttons=["fullscreen"],
        height=260,
        elem_id="preview",
    )
    faces = gr.CheckboxGroup(label="Faces to search", visible=False, elem_id="faces")
    sides = [("As the picture is", 0)] + [(f"{side} px", side) for side in sides_of(prior)]
    samples = gr.Slider(
        1,
        options.max_samples,
        value=min(SAMPLES, options.max_samples),
        step=1,
        label="Samples",
        info="How many different faces for the same pixels.",
        buttons=[],
        elem_id="samples",
    )
    find = gr.Button("Find faces", variant="primary", interactive=False, elem_id="find")
    stop = gr.Button("Stop", visible=False, variant="stop", elem_id="stop")
    with gr.Accordion("How it was made small, method, seed", open=False, elem_id="more"):
        side = gr.Dropdown(
            sides,
            value=0,
            label="Low-res size",
            info="A photo's faces are made so small before the search.",
            elem_id="side",
        )
        operator = gr.Dropdown(
            [(title, spec) for spec, title in OPERATORS.items()],
            value="bicubic",
            label="Operator",
            info="What made the small picture of the large one.",
            elem_id="operator",
        )
        method = gr.Radio(
            [(_METHODS[name], name) for name in METHODS], value="phased", label="Method"
        )
        seed = gr.Number(
            0, label="Seed", info="The same seed gives the same faces.", precision=0, minimum=0
        )
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


def _shown() -> dict[str, Any]:
    """What a visitor gets."""
    status = gr.HTML(markup.EMPTY, padding=False, elem_id="status")
    with gr.Column(visible=False, elem_id="results") as results:
        face = gr.Radio(label="Face", visible=False, elem_id="face")
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=280):
                pair = _caption("Before and after")
                slider = gr.ImageSlider(
                    show_label=False,
                    interactive=False,
                    buttons=["fullscreen"],
                    max_height=_LARGE,
                    elem_id="slider",
                )
            with gr.Column(scale=1, min_width=280):
                _caption("Samples", "click on one; dB: its match, LR-PSNR")
                gallery = gr.Gallery(
                    show_label=False,
                    columns=2,
                    height="auto",
                    object_fit="contain",
                    allow_preview=False,
                    interactive=False,
                    buttons=[],
                    elem_id="gallery",
                )
        with gr.Row(equal_height=False):
            mean = _picture("Mean", "of the samples", "mean")
            disagreement = _picture("Disagreement", "where nothing decides", "disagreement")
            with gr.Column(scale=1, min_width=150) as beside:
                network = _caption("Supervised network")
                supervised = _image("supervised")
        with gr.Column(visible=False) as whole:
            _caption("The whole photo", "enlarged, before and after")
            photo = gr.ImageSlider(
                show_label=False,
                interactive=False,
                buttons=["fullscreen"],
                max_height=640,
                elem_id="photo",
            )
        about = gr.HTML(padding=False)
        download = gr.DownloadButton("Download all files (ZIP)", elem_id="download")
    return {
        "status": status,
        "results": results,
        "face": face,
        "pair": pair,
        "slider": slider,
        "about": about,
        "gallery": gallery,
        "mean": mean,
        "disagreement": disagreement,
        "beside": beside,
        "network": network,
        "supervised": supervised,
        "whole": whole,
        "photo": photo,
        "download": download,
    }


def _picture(title: str, more: str, name: str) -> gr.Image:
    with gr.Column(scale=1, min_width=150):
        _caption(title, more)
        return _image(name)


def _image(name: str) -> gr.Image:
    return gr.Image(show_label=False, interactive=False, buttons=["fullscreen"], elem_id=name)


def _caption(title: str, more: str = "") -> gr.HTML:
    return gr.HTML(markup.caption(title, more), padding=False)
