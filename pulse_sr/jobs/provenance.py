"""What every picture that we make says of itself: synthetic, by what, with which settings.

Nothing here may depend on the time, on a path or on the order of work: equal samples are equal
files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pulse_sr import __version__
from pulse_sr.files.documents import json_text
from pulse_sr.images.write import MADE_UP, OWN_MARK
from pulse_sr.operators.spec import AUTO

if TYPE_CHECKING:
    from pulse_sr.inversion.result import Result

COMMENT = f"{MADE_UP}: a plausible reconstruction, not the person"
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

XMP = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">
   <Iptc4xmpExt:DigitalSourceType>{SOURCE_TYPE}</Iptc4xmpExt:DigitalSourceType>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""


def settings_of(result: Result) -> dict[str, Any]:
    """Returns what is needed to make the samples again, without the machine and the file names."""
    settings = {
        "version": __version__,
        "input_sha256": result.observation.sha256,
        "prior": result.prior_name,
        "prior_sha256": result.prior_sha256,
        "resolution": result.resolution,
        **result.config.pixel_options(),
        "scale": result.scale,
        "project": result.observation.projection,
    }
    if settings["operator"] == AUTO:
        settings["operator_used"] = result.observation.operator.spec
    return settings


def text_chunks(settings: dict[str, Any], lr_psnr: float | None = None) -> dict[str, str]:
    """Returns the PNG text chunks; a picture of several samples has no LR-PSNR of its own."""
    chunks = {
        "Software": f"pulse-sr {__version__}",
        "Comment": COMMENT,
        OWN_MARK: json_text(settings, sort_keys=True),
    }
    if lr_psnr is not None:
        chunks["pulse-sr:lr_psnr"] = repr(lr_psnr)
    return chunks
