"""Textures of pictures and icons, and the part of a texture that fills a rectangle."""

from collections.abc import Callable
from typing import Any

from kivy.graphics.texture import Texture

from app.library.pictures.thumbnails import Picture
from app.ui.kit import icons
from mobileclip.lru import LruCache


def picture_texture(picture: Picture) -> Texture:
    """A texture of a picture's pixels; row 0 is the top of the picture."""
    # No mipmaps: OpenGL ES 2 has them for powers of two only, and Kivy would pad to such sizes with black.
    texture = Texture.create(size=(picture.width, picture.height), colorfmt="rgb")
    texture.blit_buffer(picture.rgb, colorfmt="rgb", bufferfmt="ubyte")
    return texture


def filling(width: float, height: float, aspect: float) -> tuple[float, ...]:
    """Texture coordinates that show the middle of a picture of width × height in a rectangle of the given aspect.

    Row 0 of our textures is at the top, so the upper edge of the rectangle has v = 0.
    """
    across = min(1.0, aspect * height / max(width, 1.0))
    down = min(1.0, width / max(aspect * height, 1e-6))
    left, right = (1 - across) / 2, (1 + across) / 2
    # Faces and subjects are above the middle more often than below it.
    top = (1 - down) * 0.4
    return left, top + down, right, top + down, right, top, left, top


WHOLE = (0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0)
"""Texture coordinates of a whole picture."""

_textures: LruCache[tuple[str, int], Texture] = LruCache(256)
"""Shapes by name and size. Widgets hold on to the textures that they show, so a dropped one stays visible."""


def icon_texture(name: str, size: int) -> Texture | None:
    """An icon in white, which takes the color that was set before it; None without a name."""
    if not name or size < 1:
        return None
    return _shape(name, size, lambda: icons.icon(name, size))


def disc_texture(size: float) -> Texture | None:
    """A filled circle in white: two triangles, where Kivy's smooth ellipse has hundreds. None below one pixel."""
    side = int(size)
    if side < 1:
        return None
    return _shape("disc", side, lambda: icons.disc(side))


def corner_texture(size: int) -> Texture:
    """The outside of a rounded top-left corner; flipped texture coordinates give the other three."""
    return _shape("", size, lambda: icons.corner(size))


def _shape(name: str, size: int, draw: Callable[[], Any]) -> Texture:
    texture = _textures.get((name, size))
    if texture is None:
        texture = coverage_texture(draw())
        _textures.put((name, size), texture)
    return texture


def coverage_texture(coverage: Any) -> Texture:
    """White with the given alpha, uint8 (h, w), row 0 at the top."""
    height, width = coverage.shape
    texture = Texture.create(size=(width, height), colorfmt="rgba")
    rgba = bytearray(b"\xff") * (4 * width * height)
    rgba[3::4] = coverage[::-1].tobytes()
    texture.blit_buffer(bytes(rgba), colorfmt="rgba", bufferfmt="ubyte")
    return texture


def forget_textures() -> None:
    """Drop all icons; a new window needs new textures."""
    _textures.clear()
