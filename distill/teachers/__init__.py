"""Teachers: anything that gives vectors for photos and texts."""

from distill.teachers.base import ImageEncoder, Teacher, TextEncoder
from distill.teachers.cache import VectorCache

__all__ = ["ImageEncoder", "Teacher", "TextEncoder", "VectorCache"]
