"""What `serve` can be told. This file imports neither torch nor gradio."""

from __future__ import annotations

from dataclasses import dataclass

from pulse_sr.options import (
    Options,
    device_option,
    number,
    option,
    precision_option,
    prior_option,
    text,
    whole,
)

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class ServeOptions(Options):
    """Where the page is served, and what a visitor may ask for."""

    host: str = option(
        "127.0.0.1",
        "The address to listen on; others than this computer reach no 127.0.0.1.",
        text("ADDR", r"[0-9A-Za-z.:_-]{1,253}", "a name or an address such as 0.0.0.0"),
    )
    port: int = option(7860, "The port to listen on; 0: a free one.", whole(0, 65535))
    prior: str | None = prior_option()
    device: str = device_option()
    precision: str = precision_option()
    max_upload: float = option(20.0, "Largest upload in MB.", number(0.01, 1024, "MB"))
    max_pixels: float = option(16.0, "Largest picture in megapixels.", number(0.01, 64, "MP"))
    max_samples: int = option(16, "Most samples of a search.", whole(1, 64))
    queue: int = option(8, "How many requests may wait; one search runs at a time.", whole(1, 1000))
    time_limit: float = option(
        600.0, "Seconds after which a search is stopped.", number(1, 86400, "s")
    )

    @property
    def upload_bytes(self) -> int:
        """The largest upload in bytes."""
        return int(self.max_upload * 1e6)
