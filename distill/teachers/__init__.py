"""Teachers: models whose embeddings of photos and texts a student learns to match."""

from distill.teachers.base import ImageEncoder, Teacher, TextEncoder
from distill.teachers.cache import VectorCache

__all__ = ["ImageEncoder", "Teacher", "TextEncoder", "VectorCache"]
