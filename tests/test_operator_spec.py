"""The grammar of `--operator`: what is read, what is refused and how it is said."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest

from pulse_sr.config import SearchConfig
from pulse_sr.errors import LONGEST_MESSAGE, UsageError
from pulse_sr.operators.spec import KERNELS, parse_operator


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_alone_changes_the_size(kernel):
    spec = parse_operator(kernel)
    assert [(s.kind, s.text, s.resizes) for s in spec.stages] == [("kernel", kernel, True)]
    assert spec.resizes
    assert not spec.noisy


def test_stages_keep_their_order_values_and_text_without_spaces():
    spec = parse_operator(" gaussian:1.6 | pillow|gray|noise:0.02 |jpeg:40|mask:a b:c.png")
    assert spec.text == "gaussian:1.6|pillow|gray|noise:0.02|jpeg:40|mask:a b:c.png"
    assert [s.kind for s in spec.stages] == ["gaussian", "kernel", "gray", "noise", "jpeg", "mask"]
    assert [s.value for s in spec.stages] == [1.6, 0, 0, 0.02, 40, 0]
    assert spec.stages[-1].file == "a b:c.png"
    assert spec.has_jpeg


@pytest.mark.parametrize(
    ("text", "resizing"),
    [
        ("gaussian:1.6", 0),
        ("gaussian:1.6|pillow", 1),
        ("area|gaussian:1", 0),  # a blur of the low-res picture
        ("gaussian:1|gaussian:2|noise:0.1", 1),
        ("gray", None),
        ("mask:m.png", None),
        ("noise:0.1|jpeg:5", None),
    ],
)
def test_one_stage_changes_the_size(text, resizing):
    stages = parse_operator(text).stages
    assert [i for i, stage in enumerate(stages) if stage.resizes] == (
        [] if resizing is None else [resizing]
    )


@pytest.mark.parametrize(("text", "noisy"), [("area|noise:0.1", True), ("jpeg:9", True)])
def test_noise_and_jpeg_are_noisy(text, noisy):
    assert parse_operator(text).noisy is noisy


@pytest.mark.parametrize(
    ("text", "words", "hint"),
    [
        ("bicubik", "unknown operator stage 'bicubik', expected one of bicubic", "'bicubic'"),
        ("area|grey", "unknown operator stage 'grey'", "'gray'"),
        ("lanczos", "unknown operator stage 'lanczos'", "'pillow:lanczos'"),
        ("jpg:40", "unknown operator stage 'jpg:40'", "'jpeg:75'"),
        ("gausian:2", "unknown operator stage 'gausian:2'", "'gaussian:1.6'"),
        ("xyzzy", "mask:FILE", "--operator bicubic"),
        ("area||gray", "unknown operator stage ''", "--operator bicubic"),
        ("noise", "unknown operator stage 'noise'", "'noise:0.02'"),
        ("noise:2", "at most 1, got '2'", "noise:0.02"),
        ("noise:x", "got 'x'", "noise:0.02"),
        ("gaussian:inf", "a number above 0 and at most 1024, got 'inf'", "gaussian:1.6"),
        ("jpeg:0", "whole number from 1 to 100, got '0'", "jpeg:75"),
        ("jpeg:7.5", "got '7.5'", "jpeg:75"),
        ("jpeg:٣", "got '٣'", "jpeg:75"),
        ("mask:", "white where pixels are known", "mask:known.png"),
        ("area|bicubic", "'area' and 'bicubic' both change the size", "gaussian:SIGMA|bicubic"),
        ("gray|area|gray", "'gray' and 'gray'", "--operator gray"),
        ("mask:a|mask:b", "'mask:a' and 'mask:b'", "mask:b"),
        ("area|mask:a|jpeg:3", "'jpeg' comes after 'mask'", "jpeg:75|mask:known.png"),
    ],
)
def test_refusals_name_the_stage_and_help(text, words, hint):
    with pytest.raises(UsageError) as caught:
        parse_operator(text)
    assert words in caught.value.message
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("kind", ["mask:{}|mask:{}", "gaussian:{}", "{}", "mask:{}/\0"])
def test_refusals_of_long_texts_are_short(kind):
    """Bytes that are no UTF-8 take six letters each in a message."""
    with pytest.raises(UsageError) as caught:
        parse_operator(kind.replace("{}", "\x7f" + "\udcff" * 400))
    assert len(caught.value.message) <= LONGEST_MESSAGE
    assert len(caught.value.hint) <= LONGEST_MESSAGE


def test_identity_holds_the_mask_not_its_name(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"the same mask")
    first, second = (parse_operator(f"area|mask:{tmp_path / n}") for n in ("a.png", "b.png"))
    digest = hashlib.sha256(b"the same mask").hexdigest()
    assert first.identity() == second.identity() == f"area|mask:sha256={digest}"
    os.mkfifo(tmp_path / "pipe.png")  # opening it would wait for somebody to write
    with pytest.raises(UsageError, match="is a named pipe, not a regular file"):
        parse_operator(f"mask:{tmp_path}/pipe.png").mask_sha256()
    with pytest.raises(UsageError, match=r"nowhere\.png does not exist"):
        parse_operator("mask:nowhere.png").identity()


def test_settings_refuse_a_wrong_operator_and_an_exact_jpeg():
    with pytest.raises(UsageError, match="'bicubik'"):
        SearchConfig(operator="bicubik")
    with pytest.raises(UsageError, match="--project exact"):
        SearchConfig(operator="area|jpeg:40", project="exact")
    assert SearchConfig(operator="area|jpeg:40", project="soft").operator == "area|jpeg:40"
    assert SearchConfig(operator="auto").operator == "auto"


def test_reading_words_loads_no_torch():
    code = (
        "import sys; from pulse_sr.operators.spec import parse_operator;"
        "parse_operator('gaussian:1|area|jpeg:4'); assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_noise_and_files_are_projected_softly_and_auto_waits_for_the_input():
    for spec in ("bicubic|noise:0.02", "noise:0.1", "pillow|jpeg:40"):
        assert SearchConfig(operator=spec).projection(is_jpeg=False) == "soft"
    for spec in ("gray", "mask:m.png", "gaussian:1.6|pillow", "auto"):
        assert SearchConfig(operator=spec).projection(is_jpeg=False) == "exact"
    assert SearchConfig(operator="noise:0.1", project="exact").projection(is_jpeg=True) == "exact"
    assert SearchConfig(operator=" auto ").pixel_options()["operator"] == "auto"


def test_a_mask_counts_by_its_content_and_is_shown_by_its_name(tmp_path):
    file = tmp_path / "known.png"
    file.write_bytes(b"white")
    spec = parse_operator(f"area|mask:{file}")
    sha256 = hashlib.sha256(b"white").hexdigest()
    assert (spec.mask_file, spec.mask_sha256()) == (str(file), sha256)
    assert spec.title == "area|mask:known.png"
    options = SearchConfig(operator=spec.text).pixel_options()
    assert options["operator"] == f"area|mask:sha256={sha256}"
    assert parse_operator("area").mask_sha256() == parse_operator("area").mask_file == ""


@pytest.mark.parametrize(
    ("text", "face", "gray"),
    [
        ("bicubic", True, False),
        ("area|gray", True, True),
        ("gray", False, True),
        ("area|mask:m.png", False, False),
    ],
)
def test_faces_of_photos_go_through_resampling_without_a_mask(text, face, gray):
    spec = parse_operator(text)
    assert (spec.of_a_face, spec.in_gray) == (face, gray)
