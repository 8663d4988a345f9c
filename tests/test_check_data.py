"""`pulse-sr train-prior DATA --check-data`: what it finds, says, writes and returns."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from packed_images import images_in
from PIL import Image

from pulse_sr.alignment.duplicates import MOST_BITS, near_duplicates
from pulse_sr.alignment.geometry import FFHQ
from pulse_sr.cli import main
from pulse_sr.data.check import CheckedImage, DataCheck, check_data
from pulse_sr.data.picture import NOT_TRAINING_DATA
from pulse_sr.errors import UsageError
from pulse_sr.report.data_check import lines, verdict


def picture(seed, size=(32, 32)):
    """A smooth picture that resembles no other seed's."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


@pytest.fixture
def data(tmp_path):
    """Twenty different images of 32 px, in nested folders."""
    folder = tmp_path / "data"
    for i in range(20):
        save(folder / f"{i % 2}" / f"{i:02d}.png", picture(i))
    return folder


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Runs the command in the folder of the test."""
    monkeypatch.chdir(tmp_path)

    def invoke(*words):
        arguments = ["train-prior", *(str(word) for word in words), "--check-data"]
        return CliRunner().invoke(main, arguments)

    return invoke


def synthetic(count, duplicates=()):
    """A check of `count` square images that were never written."""
    images = tuple(CheckedImage(f"{i}.png", 64, 64, "") for i in range(count))
    return DataCheck("data", 64, 64, images=images, duplicates=duplicates)


# near-duplicates


def random_hashes(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 32), dtype=np.uint8)


def flipped(packed, bits):
    """A hash that differs in the first `bits` bits."""
    mask = np.zeros(256, np.uint8)
    mask[:bits] = 1
    return packed ^ np.packbits(mask)


def texts(packed):
    return [each.tobytes().hex() for each in packed]


def brute_force(packed):
    """Groups by comparing every pair in a Python loop."""
    group = list(range(len(packed)))
    for i in range(len(packed)):
        for j in range(i):
            if sum(int(each).bit_count() for each in packed[i] ^ packed[j]) <= MOST_BITS:
                group = [group[j] if each == group[i] else each for each in group]
    members = {}
    for place, number in enumerate(group):
        members.setdefault(number, []).append(place)
    return sorted(each for each in members.values() if len(each) > 1)


def test_groups_are_those_of_a_loop_over_all_pairs(monkeypatch):
    """Also where the pairs and the links of a group lie in different blocks."""
    packed = random_hashes(60)
    rng = np.random.default_rng(1)
    for place in range(30, 60):  # copies of copies, some within the limit and some beyond
        packed[place] = flipped(packed[rng.integers(place)], int(rng.integers(30, 70)))
    rng.shuffle(packed)
    expected = brute_force(packed)
    assert 3 < len(expected) < 30
    assert max(map(len, expected)) > 2
    for entries in (4_000_000, 60 * 7, 1):
        monkeypatch.setattr("pulse_sr.alignment.duplicates._BLOCK_ENTRIES", entries)
        assert near_duplicates(texts(packed)) == expected


@pytest.mark.parametrize(("bits", "expected"), [(MOST_BITS, [[0, 1]]), (MOST_BITS + 1, [])])
def test_the_limit_itself_still_counts(bits, expected):
    one = random_hashes(1)[0]
    assert near_duplicates(texts([one, flipped(one, bits)])) == expected


def test_a_chain_is_one_group():
    one = random_hashes(1)[0]
    chain = [one, flipped(one, 2 * MOST_BITS), flipped(one, MOST_BITS)]
    assert near_duplicates(texts(chain)) == [[0, 1, 2]]


def test_three_thousand_hashes_are_grouped():
    packed = random_hashes(3000)
    packed[2000:2100] = packed[:100]
    packed[2999] = packed[0]
    groups = near_duplicates(texts(packed))
    assert groups == [[0, 2000, 2999]] + [[i, 2000 + i] for i in range(1, 100)]
    assert near_duplicates([]) == []


# what a check finds


def test_nested_images_are_counted_and_measured(data):
    save(data / "tiny.png", picture(50, (9, 9)))
    save(data / "wide.jpg", picture(51, (80, 40)))
    save(data / "tall.png", picture(52, (32, 40)))
    found = check_data(data)
    assert [len(found.images), found.unreadable, found.duplicates] == [23, (), ()]
    assert found.sides() == (9, 32.0, 80)
    assert found.supported == found.resolution == 32
    assert found.enlarged == 1
    lost = {image.file.name: image.cropped_away for image in found.not_square}
    assert lost == {"wide.jpg": 0.5, "tall.png": pytest.approx(0.2)}
    said = "\n".join(lines(found))
    assert "shorter sides from 9 px, median 32 px; largest side 80 px" in said
    assert "1 image is smaller and would be enlarged" in said
    assert "2 images are not square" in said
    assert "35% of the picture is lost on average, 50% of wide.jpg" in said


def test_a_larger_resolution_enlarges_and_is_said_to_blur(data):
    found = check_data(data, 64)
    assert (found.supported, found.resolution, found.enlarged) == (32, 64, 20)
    assert verdict(found).endswith("most have less than 64 px, so the prior would learn blur")
    assert "blur" not in verdict(check_data(data, 32))


def test_cmyk_grey_and_rotated_images_are_read(data):
    for mode in ("CMYK", "L"):
        save(data / f"{mode}.jpg", picture(60 + len(mode)).convert(mode))
    turned = Image.Exif()
    turned[0x0112] = 6
    save(data / "turned.jpg", picture(70, (64, 32)), exif=turned)
    found = check_data(data)
    assert len(found.images) == 23
    assert found.exit_code == 0
    (image,) = found.not_square
    assert (image.width, image.height) == (32, 64)


def test_copies_are_grouped_and_counted_once(data):
    picture(3).save(data / "again.jpg", quality=60)
    picture(3, (48, 48)).save(data / "larger.png")
    shutil.copy(data / "0" / "04.png", data / "same.png")
    found = check_data(data)
    groups = [{file.as_posix() for file in group} for group in found.duplicates]
    assert sorted(groups, key=len) == [
        {"0/04.png", "same.png"},
        {"1/03.png", "again.jpg", "larger.png"},
    ]
    assert found.different == 20
    assert "23 images at 32 px, 20 of them different:" in verdict(found)
    assert "near-duplicates: 5 images in 2 groups" in lines(found)


def test_what_align_leaves_aside_is_not_looked_at(data):
    save(data / "lr_16" / "00.png", picture(0))
    (data / "lr_16" / NOT_TRAINING_DATA).touch()
    assert len(check_data(data).images) == 20


def test_progress_is_told_after_each_image(data):
    told = []
    check_data(data, progress=lambda done, total: told.append((done, total)))
    assert told == [(i, 20) for i in range(1, 21)]


def test_a_resolution_that_training_refuses_is_refused(data):
    with pytest.raises(UsageError, match="--resolution: resolution is 48"):
        check_data(data, 48)


# framings, licences


def put_sidecars(data, framing, names):
    for name in names:
        (data / name).with_suffix(".json").write_text(json.dumps({"framing": framing}))


def framing_line(data):
    return next(line for line in lines(check_data(data)) if line.startswith("framing:"))


def test_framings_of_sidecars_are_compared(data):
    assert "no sidecars" in framing_line(data)
    names = [path.relative_to(data) for path in images_in(data)]
    put_sidecars(data, FFHQ.describe(), names[:15])
    assert "(15 ffhq; 5 images without a sidecar)" in framing_line(data)
    put_sidecars(data, FFHQ.describe(), names)
    put_sidecars(data, dict(reversed(FFHQ.describe().items())), names[:3])  # the order is nothing
    assert framing_line(data) == "framing: the same in all images (20 ffhq)"
    put_sidecars(data, {"name": "template", "template": {"nose": [0.5, 0.6]}}, names[-2:])
    assert "not the same in all images (18 ffhq, 2 template)" in framing_line(data)
    assert [number for _, number in check_data(data).framings] == [18, 2]


def test_a_damaged_sidecar_is_no_sidecar(data):
    (data / "0" / "00.json").write_text("{")
    assert "no sidecars" in framing_line(data)


def test_licence_files_are_named(data):
    assert "licence: no licence file found" in "\n".join(lines(check_data(data)))
    (data / "LICENSE.txt").write_text("CC0")
    (data / "Notice").write_text("-")
    assert "licence: LICENSE.txt, Notice" in lines(check_data(data))


# the verdict


@pytest.mark.parametrize(
    ("count", "words", "code"),
    [
        (15, "too few, training needs at least 16", 1),
        (16, "it will memorise these images", 0),
        (99, "it will memorise these images", 0),
        (100, "memorises part of these images", 0),
        (999, "memorises part of these images", 0),
        (1000, "limited variety; use --cutout", 0),
        (1999, "limited variety; use --cutout", 0),
        (2000, "enough for a prior with the default settings", 0),
    ],
)
def test_the_verdict_depends_on_the_number(count, words, code):
    found = synthetic(count)
    assert verdict(found).startswith(f"{count} images at 64 px: ")
    assert words in verdict(found)
    assert ("--cutout" in verdict(found)) == (16 <= count < 2000)
    assert found.exit_code == code


def test_copies_do_not_make_a_set_larger():
    twins = tuple((f"{2 * i}.png", f"{2 * i + 1}.png") for i in range(501))
    assert "memorises part" in verdict(synthetic(1500, duplicates=twins))
    assert "limited variety" in verdict(synthetic(1500, duplicates=twins[:500]))


def test_images_below_the_smallest_network_are_too_small(tmp_path):
    for i in range(16):
        save(tmp_path / f"{i}.png", picture(i, (7, 7)))
    found = check_data(tmp_path)
    assert verdict(found).startswith("16 images at 4 px")
    assert "too small to train on, the smallest resolution is 8 px" in verdict(found)
    assert found.exit_code == 1


# the command


def test_the_command_reports_writes_its_sheets_and_trains_nothing(data, call, tmp_path):
    shutil.copy(data / "0" / "04.png", data / "same.png")
    result = call(data, "-o", "runs/a")
    assert result.exit_code == 0, result.output
    said = result.stdout.splitlines()
    assert said[0] == f"21 of 21 images in {data} can be read"
    assert "  0/04.png, same.png" in said
    assert said[-1].startswith("21 images at 32 px, 20 of them different: enough to see")
    run = tmp_path / "runs" / "a"
    assert [path.name for path in run.iterdir()] == ["check"]
    names = {"contact_sheet.png", "duplicates.png", "check.json", NOT_TRAINING_DATA}
    assert {path.name for path in (run / "check").iterdir()} == names
    with Image.open(run / "check" / "contact_sheet.png") as sheet:
        sheet.load()
        assert sheet.width > 1000  # ten in a row
        assert sheet.height > 3 * 112
    with Image.open(run / "check" / "duplicates.png") as sheet:
        sheet.load()
        assert sheet.height < 2 * 112


def test_sixty_four_are_picked_evenly(tmp_path, call, monkeypatch):
    for i in range(130):
        save(tmp_path / "many" / f"{i:03d}.png", picture(i, (8, 8)))
    seen = []

    def sheet(crops, heading):
        seen.append(([int(name[:3]) for _, name, _ in crops], crops[0][0].shape))
        return np.zeros((3, 8, 8), np.uint8)

    monkeypatch.setattr("pulse_sr.jobs.checking.contact_sheet", sheet)
    assert call("many").exit_code == 0
    [(places, shape)] = seen
    assert shape == (3, 8, 8)
    assert (len(places), places[0], places[-1]) == (64, 0, 129)
    assert set(np.diff(places)) == {2, 3}


def test_without_o_the_files_lie_beside_and_a_repeat_removes_old_ones(data, call, tmp_path):
    shutil.copy(data / "0" / "04.png", data / "same.png")
    assert call(data).exit_code == 0
    out = tmp_path / "data-check"
    assert (out / "duplicates.png").is_file()
    (data / "same.png").unlink()
    assert call(data).exit_code == 0
    assert not (out / "duplicates.png").exists()
    assert (out / "contact_sheet.png").is_file()


def test_sheets_inside_the_data_do_not_become_data(data, call):
    assert call(data, "-o", data).exit_code == 0
    assert (data / "check" / "contact_sheet.png").is_file()
    assert len(images_in(data)) == 20


def test_damaged_files_are_named_with_the_reason(data, call):
    whole = (data / "0" / "00.png").read_bytes()
    (data / "0" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (data / "empty.jpg").touch()
    (data / "text.png").write_text("hello")
    (data / "link.png").symlink_to("nowhere.png")
    result = call(data)
    assert result.exit_code == 1
    said = result.stdout.splitlines()
    assert said[0] == f"20 of 24 images in {data} can be read"
    assert any(line.startswith("  not readable: 0/cut.png is truncated or dama") for line in said)
    assert "  not readable: empty.jpg is empty (0 bytes)" in said
    assert "  not readable: text.png is not an image (5 bytes)" in said
    assert "  not readable: link.png does not exist" in said
    assert said[-1].startswith("20 images at 32 px: ")


def test_json_is_one_document_and_the_same_as_the_file(data, call):
    (data / "empty.jpg").touch()
    save(data / "same.png", picture(4))
    save(data / "wide.png", picture(90, (64, 32)))
    result = call(data, "--json", "-o", "run")
    document = json.loads(result.stdout)
    files = document.pop("files")
    names = ("contact_sheet.png", "duplicates.png", "check.json")
    assert files == [f"run/check/{name}" for name in names]
    with open("run/check/check.json", encoding="ascii") as file:
        assert json.load(file) == document
    assert document["unreadable"] == [{"file": "empty.jpg", "reason": "is empty (0 bytes)"}]
    assert document["near_duplicates"] == [["0/04.png", "same.png"]]
    assert document["sides"] == {"smallest": 32, "median": 32.0, "largest": 64}
    lost = {"images": 1, "mean_cropped_away": 0.5, "most_cropped_away": 0.5}
    assert document["not_square"] == lost
    assert (document["readable"], document["different"], document["enlarged"]) == (22, 21, 0)
    assert (document["resolution"], document["supported_resolution"]) == (32, 32)
    assert document["exit_code"] == result.exit_code == 1


def test_an_empty_folder_has_no_usable_image(tmp_path, call):
    (tmp_path / "none").mkdir()
    result = call("none", "--json", "--resolution", 64)
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["verdict"] == "0 images: no usable image"
    assert document["sides"] == {"smallest": None, "median": None, "largest": None}
    assert document["files"] == ["none-check/check.json"]
    assert call("none").stdout.splitlines()[-1] == "0 images: no usable image"


def test_a_dry_run_writes_nothing(data, call, tmp_path):
    result = call(data, "--dry-run")
    assert result.exit_code == 0
    assert "20 of 20 images" in result.stdout
    assert "written" not in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere is not a folder"),
        (["data", "--resolution", "48"], "--resolution: resolution is 48"),
    ],
)
def test_a_wrong_call_ends_with_2_and_writes_nothing(data, call, tmp_path, words, message):
    result = call(*words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_training_still_requires_o(data):
    result = CliRunner().invoke(main, ["train-prior", str(data)])
    assert result.exit_code == 2
    assert "Missing option '-o' / '--out'." in result.stderr


def test_odd_file_names_do_not_break_lines_or_sheets(data, call):
    save(data / "two\nlines.png", picture(4))
    result = call(data)
    assert result.exit_code == 0, result.output
    assert "  0/04.png, two lines.png" in result.stdout.splitlines()
