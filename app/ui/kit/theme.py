"""The theme: colors for light and dark, a type scale, and spacing. Layouts read it as `theme.…`.

Text has a contrast of at least 4.5 to its background (WCAG 2.2, 1.4.3), which a test checks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from kivy.event import EventDispatcher
from kivy.metrics import dp, sp
from kivy.properties import BooleanProperty, ColorProperty, NumericProperty


@dataclass(frozen=True)
class Palette:
    """Colors as hex strings.

    Attributes:
        ground: background of the screens.
        surface: bars, cards and fields, one step above the ground.
        raised: chips and buttons, one step above a surface.
        ink: text.
        soft: secondary text.
        line: dividers.
        accent: what can be pressed or is selected.
        accent_ink: text on accent.
        wash: a hint of accent, behind what is selected.
        danger: what can't be undone.
        tile: a photo that has not loaded yet.
    """

    ground: str
    surface: str
    raised: str
    ink: str
    soft: str
    line: str
    accent: str
    accent_ink: str
    wash: str
    danger: str
    tile: str


LIGHT = Palette(
    ground="#FBFAF7",
    surface="#FFFFFF",
    raised="#F0EEE9",
    ink="#1C1B19",
    soft="#625F58",
    line="#E3E0D9",
    accent="#0E6A64",
    accent_ink="#FFFFFF",
    wash="#DCEBE8",
    danger="#A8281F",
    tile="#E9E6E0",
)
DARK = Palette(
    ground="#121312",
    surface="#1B1D1C",
    raised="#282B2A",
    ink="#EFEEEA",
    soft="#A9ABA6",
    line="#303432",
    accent="#7FD3C9",
    accent_ink="#04302C",
    wash="#1F3936",
    danger="#FFB4A9",
    tile="#222524",
)

PHOTO_INK, PHOTO_SHADE = "#FFFFFF", "#000000"
"""Text on a photo and the shade below it, in both themes."""


def tint(color: Sequence[float], alpha: float) -> tuple[float, ...]:
    """A color with another alpha."""
    return (*color[:3], alpha)


def contrast(first: str, second: str) -> float:
    """Contrast of two opaque colors, 1 … 21 (WCAG 2.2, "contrast ratio")."""
    lighter, darker = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(color: str) -> float:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


class Theme(EventDispatcher):
    """The current palette, text sizes and spacing; layouts follow when it changes."""

    dark = BooleanProperty(False)

    ground = ColorProperty(LIGHT.ground)
    surface = ColorProperty(LIGHT.surface)
    raised = ColorProperty(LIGHT.raised)
    ink = ColorProperty(LIGHT.ink)
    soft = ColorProperty(LIGHT.soft)
    line = ColorProperty(LIGHT.line)
    accent = ColorProperty(LIGHT.accent)
    accent_ink = ColorProperty(LIGHT.accent_ink)
    wash = ColorProperty(LIGHT.wash)
    danger = ColorProperty(LIGHT.danger)
    tile = ColorProperty(LIGHT.tile)

    photo_ink = ColorProperty(PHOTO_INK)
    photo_shade = ColorProperty(PHOTO_SHADE)

    # A type scale of five steps, each about a fifth larger than the one before.
    caption = NumericProperty(sp(12))
    label = NumericProperty(sp(14))
    body = NumericProperty(sp(16))
    title = NumericProperty(sp(20))
    display = NumericProperty(sp(28))

    # Spacing in steps of four, and the smallest side of anything that can be touched.
    gap = NumericProperty(dp(4))
    pad = NumericProperty(dp(16))
    target = NumericProperty(dp(48))
    radius = NumericProperty(dp(12))
    hairline = NumericProperty(max(1.0, dp(1)))

    def on_dark(self, _: "Theme", dark: bool) -> None:
        """Switch the palette; Kivy calls this when `dark` changes."""
        palette = DARK if dark else LIGHT
        for field in fields(palette):
            setattr(self, field.name, getattr(palette, field.name))


theme = Theme()
