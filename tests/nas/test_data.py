"""Reading, packing and splitting of image data, on real files."""

from __future__ import annotations

import errno
import io
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps
from sklearn.datasets import load_digits

import nas.data
from nas.console import images_words
from nas.data import ImageData, load
from nas.evaluators.base import check_unchanged
from nas.recipe import Data, Recipe
from search_space.errors import DataError

RED = (250, 10, 20)
LOAD = "import sys; from types import SimpleNamespace as N; from nas.data import load; "
LOAD += "print(load(N(source=sys.argv[1], holdout=None), 32, 0).images.sum())"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("BASELINE_NAS_CACHE", str(folder))
    return folder


def read(source, holdout=None, resolution=8, seed=0) -> ImageData:
    return load(Data(source=str(source), holdout=holdout), resolution, seed)


def add_images(folder: Path, count: int, size=(12, 10), seed=0) -> None:
    """Images of one grey level each, no two alike within 256."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.new("RGB", size, (seed, index % 256, index // 256)).save(folder / f"{index:04}.png")


@pytest.fixture
def tree(tmp_path):
    """Folder tree of 3 classes: 20 + 10 + 10 training images, 2 val images and 2 unreadable test files a class."""
    root = tmp_path / "tree"
    for number, (name, count) in enumerate({"ant": 20, "bee": 10, "cat": 10}.items()):
        add_images(root / "train" / name, count, seed=number)
        add_images(root / "val" / name, 2, seed=100 + number)
        (root / "test" / name).mkdir(parents=True)
        (root / "test" / name / "0.png").write_bytes(b"never read")
    return root


def per_class(data: ImageData, rows) -> list[int]:
    return np.bincount(data.labels[rows], minlength=len(data.classes)).tolist()


def save_npz(path: Path, **changes) -> Path:
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8),
        "y_train": np.arange(30) % 3,
        "x_val": rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8),
        "y_val": np.arange(6) % 3,
    } | changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


# --- digits


def test_digits_are_split_in_proportion_and_their_test_images_are_in_no_part():
    data = read("digits")
    assert data.images.shape == (1438, 8, 8, 3)
    assert data.images.dtype == np.uint8
    assert data.images.max() == 255
    assert len(data.val) == 288
    assert not set(data.train) & set(data.val)
    assert max(per_class(data, data.val)) - min(per_class(data, data.val)) <= 2

    everything = {np.rint(image * (255 / 16)).astype(np.uint8).tobytes() for image in load_digits().images}
    searched = {image[..., 0].tobytes() for image in data.images}
    assert searched < everything
    assert len(everything - searched) == 1797 - 1438


def test_digits_test_set_is_the_same_for_every_seed_and_the_holdout_is_not():
    one, two = read("digits", seed=1), read("digits", seed=2)
    assert np.array_equal(one.images, two.images)
    assert not np.array_equal(one.val, two.val)
    assert np.array_equal(one.train, read("digits", seed=1).train)


# --- folders


def test_a_val_folder_rewards_by_default(tree):
    data = read(tree)
    assert data.classes == ("ant", "bee", "cat")
    assert per_class(data, data.train) == [20, 10, 10]
    assert per_class(data, data.val) == [2, 2, 2]
    assert sorted(data.images[data.val][:, 0, 0, 0]) == [100, 100, 101, 101, 102, 102]
    assert np.array_equal(data.images[data.train][:, 0, 0, 0], data.labels[data.train])
    assert np.array_equal(read(tree, "val").val, data.val)


@pytest.mark.parametrize(("holdout", "held"), [(0.2, [4, 2, 2]), (8, [4, 2, 2]), (0.5, [10, 5, 5]), (37, [19, 9, 9])])
def test_a_share_or_a_count_is_drawn_from_train_and_leaves_val_alone(tree, holdout, held):
    data = read(tree, holdout)
    assert per_class(data, data.val) == held
    assert len(data.images) == len(data.train) + len(data.val) == 40
    assert not set(data.train) & set(data.val)
    assert data.images[..., 0].max() == 2


def test_without_a_val_folder_a_fifth_of_train_is_held_out(tree):
    shutil.rmtree(tree / "val")
    assert per_class(read(tree), read(tree).val) == [4, 2, 2]


def test_a_class_of_one_image_stays_in_train(tree):
    add_images(tree / "train" / "dog", 1)
    data = read(tree, 0.5)
    assert per_class(data, data.train)[3] == 1


def test_a_holdout_of_one_class_could_tell_no_network_from_another(tmp_path):
    add_images(tmp_path / "train" / "many", 60)
    add_images(tmp_path / "train" / "few", 2)
    with pytest.raises(DataError, match=r"data\.holdout: all 12 images .* are of the class 'many'"):
        read(tmp_path)
    assert per_class(read(tmp_path, 0.6), read(tmp_path, 0.6).val) == [1, 36]


def test_subsets_hold_the_classes_in_proportion_and_at_least_one_of_each(tree):
    data = read(tree)
    assert per_class(data, data.subset(0.5).train) == [10, 5, 5]
    assert per_class(data, data.subset(0.001).train) == [1, 1, 1]
    assert np.array_equal(data.subset(0.5).val, data.val)
    assert len(data.subset(1.0).train) == 40


def test_hidden_files_and_files_that_are_no_images_are_ignored(tree):
    for name in (".DS_Store", "Thumbs.db", "notes.txt", "._0000.png", ".hidden.png"):
        (tree / "train" / "ant" / name).write_bytes(b"no image")
    (tree / "train" / ".git").mkdir()
    add_images(tree / "train" / "ant" / ".ipynb_checkpoints", 1)
    (tree / "train" / "readme.png").write_bytes(b"beside the class folders")
    assert per_class(read(tree), read(tree).train) == [20, 10, 10]
    assert read(tree).left_out == {".db": 1, ".txt": 1}


def test_files_of_kinds_that_cannot_be_read_are_counted_and_are_no_other_images(tree):
    before = read(tree).contents
    (tree / "train" / "bee" / "0000.HEIC").write_bytes(b"a photograph")
    now = read(tree).contents
    assert now == before | {"left_out": {".heic": 1}}
    check_unchanged(before | {"left_out": {".gif": 2}}, now)
    words = "46 images of 3 classes in digits"
    assert images_words(Recipe.load("digits"), before) == words
    others = {".a": 1, ".b": 3, ".c": 2, ".heic": 1200}
    told = f"{words}; left out: 1,206 files of other kinds (.heic, .b, .c, ...)"
    assert images_words(Recipe.load("digits"), before | {"left_out": others}) == told


def test_images_in_folders_of_a_class_folder_belong_to_the_class(tree):
    flat = read(tree)
    day = tree / "train" / "bee" / "camera 1" / "monday"
    day.mkdir(parents=True)
    shutil.move(tree / "train" / "bee" / "0003.png", day / "0003.png")
    nested = read(tree)
    assert per_class(nested, nested.train) == per_class(flat, flat.train)
    assert nested.digest != flat.digest
    day.joinpath("again").symlink_to(day)
    with pytest.raises(DataError, match=r"monday/again.*: Too many levels of symbolic links"):
        read(tree)


def save_kinds(folder: Path) -> None:
    """One image of every kind, all showing red or grey 120."""
    folder.mkdir(parents=True)
    red = Image.new("RGB", (30, 20), RED)
    red.save(folder / "a_rgb.JPEG", quality=95)
    red.convert("CMYK").save(folder / "b_cmyk.jpg", quality=95)
    red.convert("RGBA").save(folder / "c_alpha.png")
    red.convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "d_palette.png", transparency=0)
    red.convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "e_palette.gif")
    red.save(folder / "f.webp", lossless=True)
    red.save(folder / "g.bmp")
    red.save(folder / "h.tiff")
    Image.new("L", (30, 20), 120).save(folder / "i_grey.png")
    Image.new("LA", (30, 20), (120, 200)).save(folder / "j_grey_alpha.png")
    Image.fromarray(np.full((20, 30), 120 * 256 + 7, np.uint16)).save(folder / "k_grey16.png")
    Image.new("L", (900, 20), 120).save(folder / "l_grey_wide.jpg")
    Image.new("1", (1, 1), 1).save(folder / "m_bit.png")


def test_images_of_every_kind_become_rgb(tmp_path):
    root = tmp_path / "kinds"
    save_kinds(root / "train" / "a")
    save_kinds(root / "train" / "b")
    data = read(root, resolution=16)
    colours = data.images[:13].mean(axis=(1, 2))
    assert colours[:8] == pytest.approx(np.tile(RED, (8, 1)), abs=6)
    assert colours[8:12] == pytest.approx(np.full((4, 3), 120), abs=1)
    assert colours[12] == pytest.approx([255, 255, 255])


@pytest.mark.parametrize("orientation", range(10))
def test_every_exif_orientation_is_pillows(tmp_path, orientation):
    picture = np.random.default_rng(0).integers(0, 255, (6, 9, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        upright = ImageOps.exif_transpose(image)
    expected = ImageOps.fit(upright, (6, 6), Image.Resampling.BICUBIC)
    assert np.array_equal(nas.data._square(str(tmp_path / "a.png"), 6), np.asarray(expected))


def test_a_turned_image_with_another_tag_that_cannot_be_is_read(tmp_path):
    short, double = 3, 12  # the types of two tags, the second in the place of a text
    tags = struct.pack("<HHIHH", ExifTags.Base.Orientation, short, 1, 6, 0)
    tags += struct.pack("<HHII", ExifTags.Base.DateTime, double, 1, 38)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + tags + struct.pack("<Id", 0, 2024.5)
    Image.new("RGB", (8, 8), RED).save(tmp_path / "a.jpg", exif=exif)
    with Image.open(tmp_path / "a.jpg") as image, pytest.raises(AttributeError):
        ImageOps.exif_transpose(image)
    assert isinstance(nas.data._square(str(tmp_path / "a.jpg"), 8), np.ndarray)


def test_exif_orientation_is_applied_and_the_centre_is_cropped(tmp_path):
    picture = np.zeros((20, 60, 3), np.uint8)  # stored: black | red above blue, 20 wide | black
    picture[:10, 20:40], picture[10:, 20:40] = RED, (0, 0, 255)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    for name in "ab":
        (tmp_path / "turned" / "train" / name).mkdir(parents=True)
        for copy in range(2):
            image = Image.fromarray(picture)
            image.save(tmp_path / "turned" / "train" / name / f"{copy}.png", exif=exif)
    image = read(tmp_path / "turned", 2, resolution=20).images[0]
    assert tuple(image[10, 2]) == (0, 0, 255)
    assert tuple(image[10, 17]) == RED


# --- the pack


def test_images_are_packed_once_and_mapped_read_only(tree, cache, monkeypatch):
    first = read(tree)
    packs = list(cache.glob("*.npy"))
    assert len(packs) == 1
    assert isinstance(first.images.base, np.memmap)
    assert not first.images.flags.writeable

    monkeypatch.setattr(nas.data, "_square", None)
    assert np.array_equal(read(tree, seed=5).images, first.images)
    assert list(cache.glob("*.npy")) == packs


def test_another_resolution_or_a_changed_file_is_packed_anew(tree, cache):
    read(tree)
    assert read(tree, resolution=9).images.shape == (46, 9, 9, 3)
    Image.new("RGB", (12, 10), (77, 77, 77)).save(tree / "train" / "ant" / "0000.png")
    assert tuple(read(tree).images[0, 0, 0]) == (77, 77, 77)
    assert len(list(cache.glob("*.npy"))) == 3


def test_sources_alike_in_size_and_time_are_not_confused(tmp_path):
    for name, grey in {"one": 10, "two": 20}.items():
        for label in "ab":
            folder = tmp_path / name / "train" / label
            folder.mkdir(parents=True)
            for index in range(2):
                Image.new("RGB", (8, 8), (grey, grey, grey)).save(folder / f"{index}.bmp")
                os.utime(folder / f"{index}.bmp", (0, 0))
        save_npz(tmp_path / f"{name}.npz", x_train=np.full((30, 8, 8), grey, np.uint8))
        os.utime(tmp_path / f"{name}.npz", (0, 0))
        assert read(tmp_path / name).images.max() == grey
        assert read(tmp_path / f"{name}.npz").images[0].max() == grey


def test_contents_are_the_files_wherever_they_lie(tree, tmp_path):
    before = read(tree).contents
    moved = shutil.copytree(tree, tmp_path / "moved", copy_function=shutil.copyfile)
    assert read(moved).contents == before
    Image.new("RGB", (40, 40)).save(moved / "train" / "bee" / "0003.png")
    assert read(moved).contents != before
    x, y = np.zeros((20, 8, 8), np.uint8), np.arange(20) % 2
    np.savez(tmp_path / "plain.npz", x_train=x, y_train=y)
    np.savez_compressed(tmp_path / "small.npz", x_train=x, y_train=y, x_test=x)
    np.savez(tmp_path / "other.npz", x_train=x + 1, y_train=y)
    plain, small, other = (read(tmp_path / f"{name}.npz").contents for name in ("plain", "small", "other"))
    assert plain == small != other


def test_the_cache_folder_is_the_users_unless_named(monkeypatch, tmp_path):
    monkeypatch.delenv("BASELINE_NAS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert nas.data.cache_dir() == tmp_path / "baseline-nas"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert nas.data.cache_dir() == tmp_path / ".cache" / "baseline-nas"


def start_load(root: Path) -> subprocess.Popen[str]:
    env = os.environ | {"PYTHONPATH": str(Path(nas.data.__file__).parents[1])}
    command = [sys.executable, "-c", LOAD, str(root)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_at_once_make_one_pack(tree, cache):
    processes = [start_load(tree) for _ in range(2)]
    answers = [process.communicate(timeout=60) for process in processes]
    expected = read(tree, resolution=32).images.sum()
    assert [int(out) for out, _ in answers] == [expected] * 2
    assert len(list(cache.glob("*.npy"))) == 1
    assert not list(cache.glob("*.part"))


def test_a_process_killed_while_packing_leaves_nothing_that_is_read(tmp_path, cache):
    root = tmp_path / "big"
    for number, name in enumerate("ab"):
        add_images(root / "train" / name, 600, size=(256, 256), seed=number)
    process = start_load(root)
    limit = time.monotonic() + 30
    while not list(cache.glob("*.part")) and time.monotonic() < limit:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert list(cache.glob("*.part"))
    assert not list(cache.glob("*.npy"))

    data = read(root, resolution=32)
    assert data.images[:, 5, 5, 1].tolist() == [index % 256 for index in range(600)] * 2
    assert not list(cache.glob("*.part"))


def test_a_full_disk_is_said_before_and_while_packing(tree, cache, monkeypatch):
    bytes_needed = 46 * 8 * 8 * 3
    message = rf"cache {cache}: No space left on device \({bytes_needed:,} bytes needed\)"

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DataError, match=message):
            read(tree)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=bytes_needed - 1))
        with pytest.raises(DataError, match=message):
            read(tree)
    assert not [file for file in cache.iterdir() if file.suffix != ".lock"]
    assert len(read(tree).images) == 46


@pytest.mark.parametrize("size", [0, 60, 1000])
def test_a_damaged_pack_is_named(tree, cache, size):
    read(tree)
    (pack,) = cache.glob("*.npy")
    os.truncate(pack, size)
    with pytest.raises(DataError, match=f"cache {pack}: damaged; remove it"):
        read(tree)
    pack.unlink()
    assert len(read(tree).images) == 46


def test_what_is_no_file_is_no_image(tree):
    os.mkfifo(tree / "train" / "ant" / "waits for ever.png")
    assert len(read(tree).images) == 46


def test_a_cache_that_cannot_be_made_is_a_data_error(tree, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BASELINE_NAS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match="file/cache: Not a directory"):
        read(tree)


# --- arrays


@pytest.mark.parametrize("shape", [(30, 8, 8), (30, 8, 8, 1), (30, 8, 8, 3), (30, 9, 12, 3)])
def test_arrays_of_every_shape_are_read(tmp_path, shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    data = read(save_npz(tmp_path / "d.npz", x_train=pixels, y_train=(np.arange(30) % 3).astype(np.uint8)))
    assert data.images.shape == (36, 8, 8, 3)
    assert data.classes == ("0", "1", "2")
    assert data.labels.tolist() == [index % 3 for index in (*range(30), *range(6))]
    assert data.val.tolist() == list(range(30, 36))
    if shape[1:3] == (8, 8):
        grey = pixels.reshape(30, 8, 8, -1)
        assert np.array_equal(data.images[:30], np.broadcast_to(grey, (30, 8, 8, 3)))


def test_arrays_are_split_like_folders(tmp_path):
    data = read(save_npz(tmp_path / "d.npz"), 6)
    assert (len(data.images), len(data.train), len(data.val)) == (30, 24, 6)
    assert per_class(data, data.val) == [2, 2, 2]
    assert len(read(save_npz(tmp_path / "e.npz", x_val=None, y_val=None)).val) == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": None}, "no x_train in it"),
        ({"y_train": None}, "no y_train in it"),
        ({"y_val": None}, "no y_val in it"),
        ({"x_train": np.zeros((30, 8, 8, 3))}, "x_train must be uint8 .* not float64 of shape"),
        ({"x_train": np.zeros((30, 8, 8, 4), np.uint8)}, r"x_train must be uint8 .* \(30, 8, 8, 4\)"),
        ({"x_train": np.zeros((30, 64), np.uint8)}, "x_train must be uint8"),
        ({"x_train": np.zeros((29, 8, 8), np.uint8)}, "x_train has 29 images but y_train has 30 labels"),
        ({"y_train": np.zeros((30, 3), int)}, "y_train must be N integer labels"),
        ({"y_train": np.zeros(30)}, "y_train must be N integer labels, not float64"),
        ({"y_train": np.array([], int)}, "y_train must be N integer labels, and holds none"),
        ({"y_train": np.arange(30) % 3 - 1}, "y_train has labels out of range"),
        ({"y_train": np.arange(30) % 3 + 1}, "no image has label 0"),
        ({"y_train": np.arange(30) % 3 * 700_000_000}, "0 to 1400000000 without gaps; no image has label 1"),
        ({"y_train": np.zeros(30, int), "y_val": np.zeros(6, int)}, "only one class"),
        ({"y_val": np.arange(6)}, "y_val has label 5, out of the range 0 to 2"),
        ({"y_train": np.array([{}] * 30)}, "y_train can't be read .*allow_pickle"),
    ],
)
def test_wrong_arrays_are_refused_by_name(tmp_path, changes, message):
    path = save_npz(tmp_path / "d.npz", **changes)
    with pytest.raises(DataError, match=message) as error:
        read(path)
    assert "d.npz" in str(error.value)
    assert "\n" not in str(error.value)


def test_damaged_npz_files_are_refused(tmp_path):
    path = tmp_path / "d.npz"
    path.write_bytes(b"not a zip file")
    with pytest.raises(DataError, match=r"d\.npz: not a readable \.npz"):
        read(path)
    save_npz(path)
    content = bytearray(path.read_bytes())
    content[1000:1400] = bytes(400)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"d\.npz: x_train can't be read"):
        read(path)


def test_an_npz_that_claims_more_than_it_holds_is_refused(tmp_path):
    path = tmp_path / "d.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (2**50, 8, 8)})
    labels = io.BytesIO()
    np.save(labels, np.arange(2).repeat(8))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x_train.npy", header.getvalue())
        archive.writestr("y_train.npy", labels.getvalue())
    with pytest.raises(DataError, match=r"d\.npz: x_train can't be read \(Unable to allocate"):
        read(path)


# --- a user's mistakes


@pytest.mark.parametrize(
    ("levels", "found"),
    [
        (np.linspace(0, 1, 64, dtype=np.float32), "float32 grey levels from 0 to 1"),
        (np.arange(64, dtype=np.uint16), "uint16 grey levels from 0 to 63"),
        (np.arange(64, dtype=np.uint16) * 65, "uint16 grey levels from 0 to 4095"),
        (np.arange(64, dtype=np.int32) * 5000, "int32 grey levels from 0 to 315000"),
    ],
)
def test_grey_levels_of_a_range_that_no_file_tells_are_refused_and_not_made_black(tree, levels, found):
    path = tree / "train" / "bee" / "0003.tif"
    Image.fromarray(levels.reshape(8, 8)).save(path)
    with pytest.raises(
        DataError, match=rf"1 of its images can't be decoded: .*0003\.tif \({found}: save it with 8 bits"
    ):
        read(tree)


def damage(folder: Path) -> None:
    for index in range(5):
        whole = (folder / f"{index:04}.png").read_bytes()
        (folder / f"{index:04}.png").write_bytes([b"", b"junk", whole[:50], whole[:40], whole[:20]][index])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "data.source: .*tree does not exist"),
        (lambda root: shutil.rmtree(root / "train"), "tree: no train/ folder"),
        (lambda root: [shutil.rmtree(root / "train" / c) for c in ("ant", "bee", "cat")], "train: no class folders"),
        (lambda root: [f.unlink() for f in (root / "train" / "bee").iterdir()], "train/bee: no images"),
        (lambda root: [shutil.rmtree(root / s / c) for s in ("train", "val") for c in ("ant", "cat")], "one class"),
        (
            lambda root: [f.rename(f.with_suffix(".heic")) for f in (root / "train" / "bee").iterdir()],
            r"train/bee: no images in this class folder, only files of other kinds \(\.heic\)$",
        ),
        (lambda root: shutil.rmtree(root / "val" / "bee"), r"classes of val/ differ .*\(bee\)"),
        (
            lambda root: damage(root / "train" / "bee"),
            r"5 of its images can't be decoded: .*bee/0000.png \(cannot identify .*2.png \(.*\), \.\.\.$",
        ),
        (lambda root: (root / "train" / "ant" / "x.png").symlink_to("gone.png"), "ant/x.png: No such file"),
    ],
)
def test_a_wrong_tree_is_refused_by_name(tree, cache, spoil, message):
    spoil(tree)
    with pytest.raises(DataError, match=message) as error:
        read(tree)
    assert "\n" not in str(error.value)
    assert not list(cache.glob("*.npy"))
    assert not list(cache.glob("*.part"))


@pytest.mark.parametrize("holdout", [38, 40, 1000, 0.99])
def test_a_holdout_that_leaves_a_class_without_training_images_is_refused(tree, holdout):
    with pytest.raises(DataError, match=r"data.holdout: \d+ of the 40 training images"):
        read(tree, holdout)


def test_val_is_refused_where_there_is_none(tree, tmp_path):
    shutil.rmtree(tree / "val")
    with pytest.raises(DataError, match=r"data.holdout: .*tree has no val/ folder"):
        read(tree, "val")
    with pytest.raises(DataError, match=r"data.holdout: digits has no val"):
        read("digits", "val")
    with pytest.raises(DataError, match="no x_val"):
        read(save_npz(tmp_path / "d.npz", x_val=None, y_val=None), "val")


def test_a_file_that_is_no_npz_is_refused(tmp_path):
    (tmp_path / "images.tar").write_bytes(b"")
    with pytest.raises(DataError, match=r"images\.tar is neither a folder nor an \.npz file"):
        read(tmp_path / "images.tar")


# --- statistics


def test_mean_and_deviation_are_of_the_training_images_only(tmp_path):
    data = read(save_npz(tmp_path / "d.npz", x_val=np.full((6, 8, 8), 255, np.uint8)))
    pixels = data.images[:30].reshape(-1, 3).astype(np.float64)
    mean, std = data.mean_std
    assert mean == pytest.approx(pixels.mean(axis=0))
    assert std == pytest.approx(pixels.std(axis=0))
    assert data.mean_std is data.mean_std
