"""The campaign: `python -m tests.campaign` (8 minutes on two cores) or `--long` (hours)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# As in tests/conftest.py: what is compiled here or not must not decide about results.
os.environ["STYLEGAN_OPS"] = "ref"
os.environ["OMP_NUM_THREADS"] = "1"

if __name__ == "__main__":
    from campaign.running import main

    sys.exit(main())
