"""Image data: built-in digits, a folder tree or arrays; packed once per host and mapped by every worker."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from errno import ENOSPC
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from nas.quantities import commonest
from search_space.errors import DataError

if TYPE_CHECKING:
    from nas.recipe import Data

Pixels = NDArray[np.uint8]
Rows = NDArray[np.int64]

DEFAULT_HOLDOUT = 0.2
EXTENSIONS = (
    ".avif",
    ".bmp",
    ".gif",
    ".jfif",
    ".jpeg",
    ".jpg",
    ".pbm",
    ".pgm",
    ".png",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
)
PACK_FORMAT = "1"  # change it whenever the same source would pack to other bytes
CHUNK = 256  # images decoded between two writes
STATS_SAMPLE = 4096
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How an image is turned, by its EXIF orientation; `ImageOps.exif_transpose` fails where any other tag is damaged."""


@dataclass(frozen=True, eq=False)
class ImageData:
    """Labelled square images, and which of them train a network and which measure it.

    Attributes:
        images: N x R x R x 3 uint8, RGB, a read-only memory map shared by all processes of the host.
        labels: N class indices.
        train: Rows of the training images; every leading part of it holds the classes in proportion.
        val: Rows of the reward images, disjoint from `train`.
        classes: Class names, by index.
        digest: Of the source's files, wherever they lie.
        left_out: Number of a folder's files that aren't images of a known kind, by extension.
    """

    images: Pixels
    labels: Rows
    train: Rows
    val: Rows
    classes: tuple[str, ...]
    digest: str
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def resolution(self) -> int:
        """Side of the images in pixels."""
        return int(self.images.shape[1])

    @property
    def contents(self) -> dict[str, Any]:
        """What tells whether these are the images of another time (see `nas.evaluators.base.Contents`)."""
        guess = round(int(np.bincount(self.labels[self.val]).max()) / len(self.val), 4)
        found = {"images": len(self.labels), "classes": len(self.classes), "guess": guess, "files": self.digest}
        return found | ({"left_out": dict(self.left_out)} if self.left_out else {})

    @cached_property
    def mean_std(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and deviation of each channel, in grey levels of 0 to 255, over a sample of the training images."""
        total, square, sample = np.zeros(3), np.zeros(3), np.sort(self.train[:STATS_SAMPLE])
        for start in range(0, len(sample), CHUNK):
            part = self.images[sample[start : start + CHUNK]].reshape(-1, 3)
            total += part.sum(axis=0, dtype=np.float64)
            square += np.square(part, dtype=np.float32).sum(axis=0, dtype=np.float64)
        pixels = len(sample) * self.resolution**2
        mean = total / pixels
        return mean, np.sqrt(np.maximum(square / pixels - mean**2, 1.0))

    def subset(self, share: float) -> ImageData:
        """Keep a stratified share of the training images, at least one of each class, and all reward images."""
        return replace(self, train=self.train[: max(round(share * len(self.train)), len(self.classes))])


@dataclass(frozen=True, eq=False)
class _Source:
    """What a source holds, known without decoding it: the training images, then the reward images if it has its own.

    Attributes:
        fingerprint: Changes with the content, and with the place and the times of a folder's files.
        digest: Changes with the content alone: of a folder the files' names and sizes.
        images: Paths or pixels.
        left_out: See `ImageData.left_out`.
    """

    name: str
    classes: tuple[str, ...]
    train_labels: Rows
    val_labels: Rows | None
    fingerprint: str
    digest: str
    images: Callable[[], Iterable[str | Pixels]]
    left_out: Mapping[str, int] = field(default_factory=dict)


def load(data: Data, resolution: int, seed: int) -> ImageData:
    """Open the images of a recipe, packing them first where no process of this host has done so.

    Args:
        data: Source and hold-out.
        resolution: Side of the square every image is resized and centre-cropped to, in pixels.
        seed: The study's; it draws the hold-out and the order of the training images, not the packed file.

    Raises:
        DataError: The source is missing, empty, unreadable or too small for the hold-out, the hold-out is of one
            class, or the cache can't hold the images.
    """
    source = _source(data)
    train, val = _split(source, data.holdout, np.random.default_rng(seed))
    labels = source.train_labels if source.val_labels is None else np.append(source.train_labels, source.val_labels)
    if len(val) > 1 and len(np.unique(labels[val])) == 1:
        raise DataError(
            f"data.holdout: all {len(val)} images of {source.name} to measure the reward on are of the class "
            f"{source.classes[labels[val[0]]]!r}, so every network would look alike; hold out more, or give val images"
        )
    images = _mapped(source, (len(labels), resolution, resolution, 3))
    return ImageData(images, labels, train, val, source.classes, source.digest, source.left_out)


def cache_dir() -> Path:
    """Where packed images are kept: `$BASELINE_NAS_CACHE`, else the user's cache folder."""
    if named := os.environ.get("BASELINE_NAS_CACHE"):
        return Path(os.path.expanduser(named))
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "baseline-nas"


def _source(data: Data) -> _Source:
    if data.source == "digits":
        source = _digits()
    elif (path := Path(os.path.expanduser(data.source))).is_dir():
        source = _folder(path, data.holdout)
    elif not path.exists():
        raise DataError(f"data.source: {path} does not exist; give your own with --data PATH")
    elif path.suffix == ".npz":
        source = _arrays(path, data.holdout)
    else:
        raise DataError(f"data.source: {path} is neither a folder nor an .npz file")
    if len(source.classes) < 2:
        raise DataError(f"{source.name}: only one class ({source.classes[0]}); a classifier needs at least two")
    if data.holdout == "val" and source.val_labels is None:
        raise DataError(f"data.holdout: {source.name} has no val images of its own")
    return source


def _digits() -> _Source:
    """The 1,797 digits of scikit-learn, 8 x 8, less a fixed fifth that is the test set and never seen by a search."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    labels: Rows = bunch.target.astype(np.int64)
    searched = np.sort(_spread(labels, np.random.default_rng(0))[: round(0.8 * len(labels))])
    images: Pixels = np.rint(bunch.images[searched] * (255 / 16)).astype(np.uint8)
    fingerprint = hashlib.sha256(images.tobytes()).hexdigest()
    return _Source("digits", tuple("0123456789"), labels[searched], None, fingerprint, fingerprint, lambda: images)


def _folder(root: Path, holdout: str | float | None) -> _Source:
    """A tree `root/train/<class>/**`, with reward images from `root/val/<class>/**` where the hold-out asks for it."""
    if not (root / "train").is_dir():
        raise DataError(f"{root}: no train/ folder in it; images are looked for in train/CLASS/")
    with_val = holdout == "val" or (holdout is None and (root / "val").is_dir())
    if with_val and not (root / "val").is_dir():
        raise DataError(f"data.holdout: {root} has no val/ folder")
    here = hashlib.sha256(os.fsencode(root.resolve()))  # unpacked archives may share names, sizes and times
    anywhere = hashlib.sha256()
    left_out: Counter[str] = Counter()
    names = ("train", "val") if with_val else ("train",)
    splits = {split: _scan(root / split, here, anywhere, left_out) for split in names}
    classes = tuple(splits["train"])
    if with_val and tuple(splits["val"]) != classes:
        odd = ", ".join(sorted(set(classes) ^ set(splits["val"]))[:3])
        raise DataError(f"{root}: the classes of val/ differ from those of train/ ({odd})")

    def labels(split: str) -> Rows:
        return np.repeat(np.arange(len(classes)), [len(files) for files in splits[split].values()])

    files = [file for split in splits.values() for found in split.values() for file in found]
    val = labels("val") if with_val else None
    digests = here.hexdigest(), anywhere.hexdigest()
    return _Source(str(root), classes, labels("train"), val, *digests, lambda: files, left_out)


def _scan(folder: Path, here: hashlib._Hash, anywhere: hashlib._Hash, left_out: Counter[str]) -> dict[str, list[str]]:
    """List the image files below each class folder, sorted, and count the other files by extension.

    Names and sizes of the images are added to both digests, times to one.
    """
    found: dict[str, list[str]] = {}
    try:
        for name in sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != "."):
            others: Counter[str] = Counter()
            for entry in sorted(_files(folder / name), key=lambda e: e.path):
                if not entry.name.lower().endswith(EXTENSIONS):
                    others[Path(entry.name).suffix.lower() or "no extension"] += 1
                    continue
                stat = entry.stat()
                within = entry.path.removeprefix(f"{folder / name}/")
                line = os.fsencode(f"{folder.name}/{name}/{within}\0{stat.st_size}")
                here.update(line + f"\0{stat.st_mtime_ns}\n".encode())
                anywhere.update(line + b"\n")
                found.setdefault(name, []).append(entry.path)
            if name not in found:
                only = f", only files of other kinds ({commonest(others)})" if others else ""
                raise DataError(f"{folder / name}: no images in this class folder{only}")
            left_out.update(others)
    except OSError as error:
        raise DataError(f"{error.filename or folder}: {error.strerror}") from error
    if not found:
        raise DataError(f"{folder}: no class folders with images in it")
    return found


def _files(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    """The files of a folder and of those in it, in no order, without what is hidden."""
    for entry in os.scandir(folder):
        if entry.name[0] == ".":
            continue
        if entry.is_dir():
            yield from _files(entry.path)
        elif entry.is_file() or not os.path.exists(entry.path):
            yield entry  # a broken link too: who reads it reports the error


def _arrays(path: Path, holdout: str | float | None) -> _Source:
    """An .npz of `x_train, y_train` and, where the hold-out asks for them, `x_val, y_val`."""
    try:
        with zipfile.ZipFile(path) as archive:
            sums = {member.filename.removesuffix(".npy"): member.CRC for member in archive.infolist()}
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a readable .npz file ({error})") from error
    with_val = holdout == "val" or (holdout is None and "x_val" in sums)
    splits = ("train", "val") if with_val else ("train",)
    keys = [f"{letter}_{split}" for split in splits for letter in "xy"]
    for key in keys:
        if key not in sums:
            raise DataError(f"{path}: no {key} in it")
    labels = {split: _labels(path, f"y_{split}") for split in splits}
    count = int(labels["train"].max()) + 1
    found = np.unique(labels["train"])
    if len(found) < count:
        missing = int(np.argmax(np.append(found, count) != np.arange(len(found) + 1)))
        raise DataError(f"{path}: y_train labels must be 0 to {count - 1} without gaps; no image has label {missing}")
    if with_val and labels["val"].max() >= count:
        raise DataError(f"{path}: y_val has label {labels['val'].max()}, out of the range 0 to {count - 1} of y_train")

    def images() -> Iterator[Pixels]:
        for split in splits:
            yield from _pixels(path, f"x_{split}", len(labels[split]))

    classes = tuple(map(str, range(count)))
    fingerprint, digest = (
        hashlib.sha256(text.encode()).hexdigest() for text in (f"{splits}{sums}", repr([sums[key] for key in keys]))
    )
    return _Source(str(path), classes, labels["train"], labels.get("val"), fingerprint, digest, images)


def _labels(path: Path, key: str) -> Rows:
    labels = _member(path, key)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{path}: {key} must be N integer labels, not {labels.dtype} of shape {labels.shape}")
    if not labels.size:
        raise DataError(f"{path}: {key} must be N integer labels, and holds none")
    if labels.min() < 0 or labels.max() >= np.iinfo(np.int32).max:
        raise DataError(f"{path}: {key} has labels out of range ({labels.min()} to {labels.max()})")
    return labels.astype(np.int64)


def _pixels(path: Path, key: str, count: int) -> Pixels:
    pixels = _member(path, key)
    shaped = pixels.ndim == 3 or (pixels.ndim == 4 and pixels.shape[3] in (1, 3))
    if pixels.dtype != np.uint8 or not shaped or 0 in pixels.shape:
        found = f"{pixels.dtype} of shape {pixels.shape}"
        raise DataError(f"{path}: {key} must be uint8 of shape N x H x W, optionally x 1 or x 3, not {found}")
    if len(pixels) != count:
        raise DataError(f"{path}: {key} has {len(pixels)} images but y_{key[2:]} has {count} labels")
    return pixels[..., 0] if pixels.ndim == 4 and pixels.shape[3] == 1 else pixels


def _member(path: Path, key: str) -> NDArray[Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return np.asarray(archive[key])
    except Exception as error:  # the zip, zlib, header and array readers raise errors of every kind on damaged files
        raise DataError(f"{path}: {key} can't be read ({error})") from error


def _split(source: _Source, holdout: str | float | None, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Rows that train and rows that reward, drawn in proportion to the classes unless the source has its own."""
    order = _spread(source.train_labels, rng)
    total = len(order)
    if source.val_labels is not None:
        return order, np.arange(total, total + len(source.val_labels))
    wanted = DEFAULT_HOLDOUT if holdout is None else float(holdout)
    count = holdout if isinstance(holdout, int) else max(1, round(wanted * total))
    if total - count < len(source.classes):
        raise DataError(
            f"data.holdout: {count} of the {total} training images of {source.name} leaves too few to train on, "
            f"at least one for each of {len(source.classes)} classes"
        )
    return order[: total - count], np.sort(order[total - count :])


def _spread(labels: Rows, rng: np.random.Generator) -> Rows:
    """Shuffle rows so that every leading part holds the classes in proportion, one of each class coming first."""
    shuffled = rng.permutation(len(labels))
    classes = labels[shuffled]
    return shuffled[np.argsort(rank_in_class(classes) / np.bincount(classes)[classes], kind="stable")]


def rank_in_class(labels: Rows) -> Rows:
    """How many rows before each one have its label (n,)."""
    counts, rank = np.bincount(labels), np.empty(len(labels), np.int64)
    rank[np.argsort(labels, kind="stable")] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rank


def _mapped(source: _Source, shape: tuple[int, int, int, int]) -> Pixels:
    """Map the packed images, made first by whichever process gets the lock."""
    key = hashlib.sha256(f"{PACK_FORMAT}\0{source.fingerprint}\0{shape}".encode()).hexdigest()[:32]
    pack, needed = cache_dir() / f"{key}.npy", int(np.prod(shape))
    try:
        pack.parent.mkdir(parents=True, exist_ok=True)
        if not pack.exists():
            with FileLock(pack.with_suffix(".lock")):
                if not pack.exists():
                    _pack(source, shape, pack)
        return _opened(pack)
    except OSError as error:
        why = f"{error.strerror or error} ({needed:,} bytes needed)"
        raise DataError(f"cache {pack.parent}: {why}; BASELINE_NAS_CACHE names another folder") from error


def _opened(pack: Path) -> Pixels:
    try:
        return np.asarray(np.load(pack, mmap_mode="r", allow_pickle=False))
    except (ValueError, EOFError):
        raise DataError(f"cache {pack}: damaged; remove it, and it is made again") from None


def _pack(source: _Source, shape: tuple[int, int, int, int], pack: Path) -> None:
    """Decode every image into one .npy file, under a name that nobody reads until it is whole.

    The lock's holder is the only writer, so what a killed process left under that name is simply overwritten.
    """
    part = pack.with_suffix(".part")
    try:
        part.unlink(missing_ok=True)
        if shutil.disk_usage(pack.parent).free < np.prod(shape):
            raise OSError(ENOSPC, os.strerror(ENOSPC))
        with part.open("wb") as file, ThreadPoolExecutor() as pool:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            _write(source, shape[1], file, pool)
            file.flush()
            os.fsync(file.fileno())
        part.replace(pack)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _write(source: _Source, resolution: int, file: BinaryIO, pool: ThreadPoolExecutor) -> None:
    items, broken = iter(source.images()), list[str]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on images that it decodes all the same
        while chunk := list(islice(items, CHUNK)):
            squares = list(pool.map(partial(_square, resolution=resolution), chunk))
            broken += [
                f"{item} ({square})" for item, square in zip(chunk, squares, strict=True) if isinstance(square, str)
            ]
            file.writelines(square.data for square in squares if not isinstance(square, str))
    if broken:
        named = ", ".join(broken[:3]) + (", ..." if len(broken) > 3 else "")
        raise DataError(f"{source.name}: {len(broken)} of its images can't be decoded: {named}")


def _square(item: str | Pixels, resolution: int) -> Pixels | str:
    """Decode one image as RGB, its shorter side resized and centre-cropped; the reason if that can't be done."""
    try:
        with Image.open(item) if isinstance(item, str) else Image.fromarray(item) as image:
            image.draft(None, (2 * resolution, 2 * resolution))  # a JPEG is decoded no larger than it will be used
            turn = UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
            upright = image if turn is None else image.transpose(turn)
            if upright.mode[0] in "IF":  # convert() would clip, not scale
                upright = Image.fromarray(_eight_bits(np.asarray(upright)))
            fitted = ImageOps.fit(upright.convert("RGB"), (resolution, resolution), Image.Resampling.BICUBIC)
            return np.ascontiguousarray(fitted)
    except Exception as error:  # Pillow's decoders raise errors of every kind on damaged files
        return str(error).removesuffix(f" {item!r}") or type(error).__name__


def _eight_bits(levels: NDArray[Any]) -> Pixels:
    """Grey levels of 16 bits (H, W), scaled to 8.

    Raises:
        ValueError: they are of another range, which no file tells.
    """
    highest = levels.max()
    if levels.dtype.kind == "f" or levels.min() < 0 or 0 < highest < 2**12 or highest >= 2**16:
        found = f"{levels.dtype} grey levels from {levels.min():g} to {highest:g}"
        raise ValueError(f"{found}: save it with 8 bits, or with 16 bits whose range is used")
    return (levels >> 8).astype(np.uint8)
