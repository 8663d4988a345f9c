"""Find, crop and rotate the faces of photos: the same as `pulse-sr align`.

python scripts/align_faces.py photos/ -o faces --size 256 --lr 16,32
"""

from __future__ import annotations

import sys

from pulse_sr.cli import main

if __name__ == "__main__":
    main(["align", *sys.argv[1:]], prog_name="pulse-sr")
