"""A printed page: lines with their geometry, as a reader finds them and the layout takes them apart."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    """A printed line; lengths in points, y upwards. `size` 0 means that nothing is known but the words."""

    text: str
    hyphenated: bool = False  # ended by a hyphen of line breaking, which `text` lacks
    left: float = 0.0
    bottom: float = 0.0
    right: float = 0.0
    top: float = 0.0
    size: float = 0.0
    bold: bool = False
    quarter: int = 0  # of a turn that the line is rotated by

    @property
    def sparse(self) -> bool:
        """Whether the words stand far apart, as the cells of a row do; running text is half as wide as it is high."""
        return self.right - self.left > 0.75 * self.size * len(self.text)


@dataclass(frozen=True, slots=True)
class Page:
    number: int
    height: float
    lines: tuple[Line, ...]
