"""What can be built: architectures, the primitives they expand to, search spaces, exact costs, known networks."""

from search_space.architecture import Architecture, HeadSpec, StageSpec, StemSpec
from search_space.blocks import Block, register
from search_space.errors import ArchitectureError, DataError, InputError, SpaceError
from search_space.library import load_architecture, load_space
from search_space.space import Decision, SearchSpace

__all__ = [
    "Architecture",
    "ArchitectureError",
    "Block",
    "DataError",
    "Decision",
    "HeadSpec",
    "InputError",
    "SearchSpace",
    "SpaceError",
    "StageSpec",
    "StemSpec",
    "load_architecture",
    "load_space",
    "register",
]
