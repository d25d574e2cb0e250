"""Compound scaling: one network grown into a family, in depth, width and resolution at once.

EfficientNet (Tan & Le 2019, arXiv 1905.11946), section 3.3: depth alpha^phi, width beta^phi, resolution gamma^phi with
alpha * beta^2 * gamma^2 near 2, so that FLOPs grow about 2^phi.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product

from nas.fitting import TOLERANCE, MemoryFunction, Wish
from search_space import cost
from search_space.architecture import Architecture
from search_space.errors import InputError
from search_space.transform import ROUND, scale_depth, scale_width

PRODUCT_TOLERANCE = 0.25
"""How far alpha * beta^2 * gamma^2 may be from 2 unless told otherwise; the paper's own product is 1.92."""

MOST = 100
"""No dimension grows more than this many times: nothing published comes near, and every count stays quick."""

DIVISOR = 8
"""Channels are multiples of it in the release."""

_DROPOUT = 0.5
_STEPS = 1000
"""A fitted phi is a multiple of 1 / 1000: short to write down, and FLOPs grow by 0.07% a step, rounding aside."""


def _at_least(name: str, value: float, least: float, reason: str) -> None:
    if not least <= value < math.inf:
        raise InputError(f"{name} {value:g}: must be a number from {least:g} up; {reason}")


@dataclass(frozen=True, slots=True)
class Coefficients:
    """How depth, width and resolution share the growth.

    Attributes:
        alpha: depth multiplier at phi = 1.
        beta: width multiplier at phi = 1.
        gamma: resolution multiplier at phi = 1.

    Raises:
        InputError: one is below 1, not a number, or above `MOST`.
    """

    alpha: float
    beta: float
    gamma: float

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "gamma"):
            value = getattr(self, name)
            _at_least(f"--{name}", value, 1, "a network only grows")
            if value > MOST:
                raise InputError(f"--{name} {value:g}: must be at most {MOST}")

    @property
    def product(self) -> float:
        """What FLOPs grow by at phi = 1, rounding aside."""
        return self.alpha * (self.beta * self.gamma) ** 2


PAPER = Coefficients(alpha=1.2, beta=1.1, gamma=1.15)
"""The paper's grid search on EfficientNet-B0."""

DIMENSIONS = {
    "compound": PAPER,
    "depth": Coefficients(2, 1, 1),
    "width": Coefficients(1, math.sqrt(2), 1),
    "resolution": Coefficients(1, 1, math.sqrt(2)),
}
"""The paper's compound growth, and growth in one dimension alone that doubles FLOPs at phi = 1 too."""


@dataclass(frozen=True, slots=True)
class Rounding:
    """What channels, pixels and layers are rounded to.

    Attributes:
        divisor: channels are multiples of it.
        resolution: the image size is the nearest multiple of so many pixels.
        layers: `up` as in the release, to the `nearest` whole number, or `down`.

    Raises:
        InputError: a step below 1.
    """

    divisor: int = DIVISOR
    resolution: int = 1
    layers: str = "up"

    def __post_init__(self) -> None:
        _at_least("--divisor", self.divisor, 1, "channels are multiples of it")
        _at_least("--round-resolution", self.resolution, 1, "pixels are multiples of it")

    def and_others(self) -> Iterator[Rounding]:
        """This one, then other roundings of the layers, then all of them with both steps halved again and again."""
        ways = sorted(ROUND, key=lambda way: way != self.layers)
        divisor, resolution = self.divisor, self.resolution
        while True:
            yield from (Rounding(divisor, resolution, way) for way in ways)
            if divisor == resolution == 1:
                return
            divisor, resolution = max(1, divisor // 2), max(1, resolution // 2)


@dataclass(frozen=True, slots=True)
class Multipliers:
    """A network's size as multiples of another's.

    Raises:
        InputError: one is below 1, not a number, or above `MOST`.
    """

    depth: float
    width: float
    resolution: float

    def __post_init__(self) -> None:
        for name in ("depth", "width", "resolution"):
            value = getattr(self, name)
            _at_least(f"{name} x", value, 1, "a network only grows")
            if value > MOST:
                raise InputError(f"{name} x {value:.4g}: more than {MOST} times the network's own; use less growth")

    @property
    def flops(self) -> float:
        """What FLOPs grow by, rounding aside: depth counts once, width and resolution twice."""
        return self.depth * (self.width * self.resolution) ** 2


@dataclass(frozen=True, slots=True)
class Member:
    """One network of a family.

    Attributes:
        architecture: the network, channels, layers and pixels rounded.
        phi: its compound coefficient; 0 is the baseline.
        multipliers: as the formula gives them, before rounding.
        wished_flops: what was asked for: the baseline's FLOPs times the multipliers', or the target of a fit.
        rounding: what it was rounded to.
    """

    architecture: Architecture
    phi: float
    multipliers: Multipliers
    wished_flops: float
    rounding: Rounding

    @property
    def flops(self) -> int:
        """True multiply-adds for one image."""
        return cost.flops(self.architecture)


def grow(architecture: Architecture, multipliers: Multipliers, rounding: Rounding = Rounding()) -> Architecture:
    """The network in another size: stem, head and all stages wider, every stage deeper, larger images.

    Its name, dropout and drop-path stay.

    Raises:
        InputError: channels or images smaller than the step they are rounded to.
        ArchitectureError: a size that no network can have.
    """
    widest, pixels = max(stage.out_chs for stage in architecture.stages), architecture.resolution
    _not_coarser("--divisor", rounding.divisor, max(widest, DIVISOR), f"{widest} channels at most")
    _not_coarser("--round-resolution", rounding.resolution, pixels, f"images of {pixels} px")
    wider = scale_width(architecture, multipliers.width, rounding.divisor)
    grown = scale_depth(wider, multipliers.depth, rounding.layers)
    larger = math.floor(pixels * multipliers.resolution / rounding.resolution + 0.5) * rounding.resolution
    resolution = pixels if multipliers.resolution == 1 else max(pixels, larger)
    return grown.with_(resolution=resolution)


def _not_coarser(option: str, step: int, largest: int, has: str) -> None:
    if step > largest:
        raise InputError(f"{option} {step}: is coarser than the network itself, which has {has}")


def dropout_at(base: float, phi: float) -> float:
    """Dropout before the classifier, which grows with the network: half the base's more every second phi, at most 0.5.

    From B0's 0.2 that is the release's 0.2, 0.2, 0.3, 0.3, 0.4, 0.4, 0.5, 0.5; a network without dropout stays so.
    The release's drop-path rate is the same for all sizes, rising with depth inside each network.
    """
    return max(base, min(_DROPOUT, round(base * float(1 + phi // 2 / 2), 6)))


class Scaler(ABC):
    """Grows a network by a single number, phi; subclasses say what a phi means."""

    rounding: Rounding

    @abstractmethod
    def multipliers(self, phi: float) -> Multipliers:
        """Depth, width and resolution at `phi`.

        Raises:
            InputError: a phi that isn't known or grows too much.
        """

    @abstractmethod
    def name(self, architecture: Architecture, phi: float) -> str:
        """What the member is called; phi is above 0."""

    def scale(self, architecture: Architecture, phi: float) -> Member:
        """The member at `phi`; at 0 the network itself.

        Raises:
            InputError: see `multipliers` and `grow`.
        """
        name = self.name(architecture, phi) if phi else architecture.name
        return self._member(architecture, phi, self.multipliers(phi), name)

    def _member(self, architecture: Architecture, phi: float, multipliers: Multipliers, name: str) -> Member:
        grown = grow(architecture, multipliers, self.rounding)
        grown = grown.with_(name=name, dropout=dropout_at(architecture.dropout, phi))
        return Member(grown, phi, multipliers, cost.flops(architecture) * multipliers.flops, self.rounding)

    def family(self, architecture: Architecture, phis: Iterable[float]) -> list[Member]:
        """One member for each phi, in order."""
        return [self.scale(architecture, phi) for phi in phis]


@dataclass(frozen=True, slots=True)
class CompoundScaler(Scaler):
    """The paper's equation 3.

    Attributes:
        coefficients: how the dimensions share the growth; `DIMENSIONS` has those of a single one.
        rounding: of channels and pixels.
        any_product: whether alpha * beta^2 * gamma^2 may be far from 2.

    Raises:
        InputError: a product far from 2.
    """

    coefficients: Coefficients = PAPER
    rounding: Rounding = Rounding()
    any_product: bool = False

    def __post_init__(self) -> None:
        growth = self.coefficients.product
        if not self.any_product and abs(growth - 2) > PRODUCT_TOLERANCE:
            raise InputError(
                f"--alpha, --beta, --gamma: alpha * beta^2 * gamma^2 is {growth:.4g}, not near 2, so FLOPs would grow "
                f"{growth:.4g}^phi; say --any-product if that is meant"
            )

    def multipliers(self, phi: float) -> Multipliers:
        """See `Scaler.multipliers`."""
        _at_least("--phi", phi, 0, "0 is the network itself")
        if phi > self.most_phi:
            raise InputError(
                f"--phi {phi:g}: would grow a dimension more than {MOST} times; these coefficients allow "
                f"{math.floor(self.most_phi * 10) / 10:g}"
            )
        shares = self.coefficients
        return Multipliers(shares.alpha**phi, shares.beta**phi, shares.gamma**phi)

    @property
    def most_phi(self) -> float:
        """The phi at which the first dimension has grown `MOST` times."""
        shares = self.coefficients
        fastest = max(shares.alpha, shares.beta, shares.gamma)
        return math.log(MOST) / math.log(fastest) if fastest > 1 else math.inf

    def name(self, architecture: Architecture, phi: float) -> str:
        """`NAME-phi2`, or `NAME-width-phi2` for growth in width alone."""
        shares = {"depth": self.coefficients.alpha, "width": self.coefficients.beta}
        shares["resolution"] = self.coefficients.gamma
        grown = [dimension for dimension, share in shares.items() if share > 1]
        return "-".join([architecture.name, *(grown if len(grown) == 1 else []), f"phi{phi:g}"])

    def fit(
        self,
        architecture: Architecture,
        flops: float | None = None,
        memory: float | None = None,
        memory_of: MemoryFunction = cost.inference_memory,
    ) -> Member:
        """The member that meets a wish after rounding: phi is found, and where needed a finer rounding.

        With `flops` alone it is a member within 2% of them, or the nearest there is; with `memory`, the paper's problem
        (equation 2), it is the largest that exceeds neither. Roundings finer than the scaler's are tried only while the
        member isn't within 2% of the wish (`Member.rounding` says which one it took). The nearest there is may still be
        further away, where depth alone grows by whole layers: compare `Member.flops` with `Member.wished_flops`.

        Args:
            architecture: to grow.
            flops: multiply-adds for one image.
            memory: bytes.
            memory_of: bytes that a network needs.

        Raises:
            InputError: not even the network itself meets the wish, or one grown `MOST` times is still too small.
        """
        wish = Wish(flops, memory, memory_of)
        wish.check(architecture)
        searches = (CompoundScaler._grown, CompoundScaler._widened)
        found: list[Member] = []
        for search, rounding in product(searches, self.rounding.and_others()):
            found += search(replace(self, rounding=rounding), architecture, wish)
            best = min(found, key=lambda member: wish.miss(member.architecture))
            if wish.miss(best.architecture) <= TOLERANCE:
                break
        return best if flops is None else replace(best, wished_flops=flops)

    def _grown(self, architecture: Architecture, wish: Wish) -> list[Member]:
        """The last phi within the wish, and the next one where the wish is no limit."""
        if not math.isfinite(self.most_phi):
            raise InputError("--alpha, --beta, --gamma: all are 1, so that nothing grows")
        most = math.floor(self.most_phi * _STEPS)
        last = wish.last_within(lambda steps: self.scale(architecture, steps / _STEPS).architecture, most)
        if last == most:
            raise InputError(f"{wish}: more than {architecture.name} needs with a dimension grown {MOST} times")
        phis = [last] if wish.is_limit else [last, last + 1]
        return self.family(architecture, [phi / _STEPS for phi in phis])

    def _widened(self, architecture: Architecture, wish: Wish) -> list[Member]:
        """The last phi within the wish, widened up to it: whole layers and pixels may leave a gap, channels don't."""
        below, beta = self._grown(architecture, wish)[0], self.coefficients.beta
        if beta == 1:
            return [below]

        def wider(steps: int) -> Member:
            multipliers = replace(below.multipliers, width=beta ** (below.phi + steps / _STEPS))
            name = f"{below.architecture.name}-w{multipliers.width:.4g}"
            return self._member(architecture, below.phi, multipliers, name)

        most = math.floor((math.log(MOST, beta) - below.phi) * _STEPS)
        last = wish.last_within(lambda steps: wider(steps).architecture, most)
        return [wider(last)] if wish.is_limit else [wider(last), wider(min(last + 1, most))]


_EFFICIENTNET = (
    (1.0, 1.0, 224),
    (1.1, 1.0, 240),
    (1.2, 1.1, 260),
    (1.4, 1.2, 300),
    (1.8, 1.4, 380),
    (2.2, 1.6, 456),
    (2.6, 1.8, 528),
    (3.1, 2.0, 600),
)


@dataclass(frozen=True, slots=True)
class EfficientNetScaler(Scaler):
    """Depth, width and resolution of the EfficientNet release's B0 to B7, relative to B0's.

    They aren't powers of alpha, beta and gamma: at phi = 7 the formula gives a depth of 3.58, the release has 3.1.

    Attributes:
        rounding: of channels and pixels.
    """

    rounding: Rounding = Rounding()

    def multipliers(self, phi: float) -> Multipliers:
        """See `Scaler.multipliers`."""
        if phi not in range(len(_EFFICIENTNET)):
            raise InputError(f"--phi {phi:g}: the preset has whole numbers from 0 to {len(_EFFICIENTNET) - 1}")
        depth, width, pixels = _EFFICIENTNET[int(phi)]
        return Multipliers(depth, width, pixels / _EFFICIENTNET[0][2])

    def name(self, architecture: Architecture, phi: float) -> str:
        """`efficientnet-b3` from `efficientnet-b0`, `NAME-b3` from others."""
        return f"{architecture.name.removesuffix('-b0')}-b{phi:g}"


PRESETS: dict[str, type[EfficientNetScaler]] = {"efficientnet": EfficientNetScaler}
