"""Pixels to textures, and the part of a texture that fills a rectangle."""

from kivy.graphics.texture import Texture

from app.library.thumbnails import Picture


def picture_texture(picture: Picture) -> Texture:
    """A texture of a picture's pixels; row 0 is the top of the picture."""
    # No mipmaps: OpenGL ES 2 has none for sizes that are no powers of two, and Kivy would pad to such sizes with black.
    texture = Texture.create(size=(picture.width, picture.height), colorfmt="rgb")
    texture.blit_buffer(picture.rgb, colorfmt="rgb", bufferfmt="ubyte")
    return texture


def filling(width: float, height: float, aspect: float) -> tuple[float, ...]:
    """Texture coordinates that show the middle of a picture of width × height in a rectangle of the given aspect.

    Rows of our textures run downwards, so that the upper edge of the rectangle takes v = 0.
    """
    across = min(1.0, aspect * height / max(width, 1.0))
    down = min(1.0, width / max(aspect * height, 1e-6))
    left, right = (1 - across) / 2, (1 + across) / 2
    # Faces and subjects sit above the middle more often than below it.
    top = (1 - down) * 0.4
    return left, top + down, right, top + down, right, top, left, top


WHOLE = (0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0)
"""Texture coordinates of a whole picture."""
