"""Files that are too large to be handed over whole: split, checked and joined again.

    python scripts/gpu/parts.py join FOLDER NAME

writes NAME beside its parts `NAME.part-00`, `NAME.part-01`, ... after comparing every part, and the
whole, with FOLDER/SHA256SUMS. By hand: `cat NAME.part-* > NAME && sha256sum -c SHA256SUMS`.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

PART_BYTES = 15 * 2**20
CHECKSUMS = "SHA256SUMS"


def split(source: Path, folder: Path, part_bytes: int = PART_BYTES) -> list[Path]:
    """Writes `source` as numbered parts and the checksums of the whole and of each.

    Returns:
        The parts, in their order.
    """
    for old in folder.glob(f"{source.name}.part-*"):
        old.unlink()
    content = source.read_bytes()
    sums = [f"{_digest(content)}  {source.name}"]
    parts = []
    for index, start in enumerate(range(0, max(1, len(content)), part_bytes)):
        piece = content[start : start + part_bytes]
        part = folder / f"{source.name}.part-{index:02d}"
        part.write_bytes(piece)
        parts.append(part)
        sums.append(f"{_digest(piece)}  {part.name}")
    (folder / CHECKSUMS).write_text("\n".join(sums) + "\n")
    return parts


def join(folder: Path, name: str) -> Path:
    """Writes a file from its parts.

    Returns:
        The file.

    Raises:
        ValueError: a part is missing, or a part or the whole is not what was split.
    """
    expected = _read_sums((folder / CHECKSUMS).read_text().splitlines())
    names = sorted(each for each in expected if each.startswith(f"{name}.part-"))
    if not names:
        raise ValueError(f"{folder / CHECKSUMS} names no parts of {name}")
    pieces = []
    for each in names:
        part = folder / each
        if not part.is_file():
            raise ValueError(f"{part} is missing")
        pieces.append(part.read_bytes())
        if _digest(pieces[-1]) != expected[each]:
            raise ValueError(f"{part} is damaged")
    content = b"".join(pieces)
    if _digest(content) != expected.get(name):
        raise ValueError(f"the parts of {name} in {folder} do not make up the whole")
    target = folder / name
    target.write_bytes(content)
    return target


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read_sums(lines: Iterable[str]) -> dict[str, str]:
    pairs = (line.split(maxsplit=1) for line in lines if line.strip())
    return {name.strip(): digest for digest, name in pairs}


def main(words: Sequence[str]) -> int:
    """Joins; returns the exit code."""
    if len(words) != 3 or words[0] != "join":
        print("usage: parts.py join FOLDER NAME", file=sys.stderr)
        return 2
    try:
        print(join(Path(words[1]), words[2]))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
