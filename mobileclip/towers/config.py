"""What a model is made of: one TOML a model, read into frozen dataclasses that check themselves."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mobileclip.errors import ConfigError
from mobileclip.files import PathLike
from mobileclip.preprocess import PixelRecipe

CONFIGS = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class ImageConfig:
    """An image tower: any timm model, then a linear projection, and what may stand beside that."""

    trunk: str
    """Name of a timm model, e.g. `tf_efficientnet_lite0`."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of that timm model, e.g. another depth."""
    bias: bool = False
    """Whether the projection has one, as in towers whose projection is the trunk's own classifier."""
    dropout: float = 0.0
    """Dropout on the pooled features, before the projection, and within `hidden`."""
    hidden: int = 0
    """Width of a hidden layer beside the projection, 0 for none; what both say is added."""
    classes: int = 0
    """Classes of a classifier on the same features, 0 for none: what it sees is said as the mean of the classes'
    vectors, weighted by their probabilities (ConSE, Norouzi et al. 2014), and added to the projection's unit vector."""
    class_share: float = 0.5
    """Length of what the classifier says, beside the projection's 1."""

    def __post_init__(self) -> None:
        if min(self.hidden, self.classes) < 0 or not self.class_share > 0:
            raise ConfigError("an image tower needs hidden ≥ 0, classes ≥ 0 and class_share above 0")


@dataclass(frozen=True)
class TextConfig:
    """A text tower: pre-norm transformer, learned positions, pooled at the end-of-text token."""

    vocab_size: int
    context_length: int = 77
    width: int = 512
    heads: int = 8
    layers: int = 12
    causal: bool = True
    """Whether a token sees only what stands before it. A causal tower may be fed without trailing padding."""
    activation: Literal["gelu", "quick_gelu"] = "gelu"
    """Of the MLPs; OpenAI's weights and some of DFN's were trained with x · sigmoid(1.702 x)."""
    repmixers: bool = False
    """A convolutional block before the first and behind the last layer, as in MobileCLIP-S0 (version 1)."""
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ConfigError(f"text width {self.width} is not a multiple of {self.heads} heads")
        if self.context_length < 3 or self.layers < 1 or self.vocab_size < 515:
            raise ConfigError("text tower: context_length ≥ 3, layers ≥ 1 and vocab_size ≥ 515 are needed")
        if self.activation not in ("gelu", "quick_gelu"):
            raise ConfigError(f"text tower: activation must be gelu or quick_gelu, not {self.activation!r}")
        if self.repmixers and self.causal:
            raise ConfigError("text tower: RepMixer blocks look ahead, so the tower cannot be causal")


@dataclass(frozen=True)
class ModelConfig:
    """Both towers, the space they share, and the pixels that the image tower was made for."""

    name: str
    embed_dim: int
    image: ImageConfig
    text: TextConfig
    pixels: PixelRecipe
    tokenizer: Literal["own", "openai"] = "own"
    """`openai`: CLIP's 49,408 tokens, whose merges open_clip carries; `own`: merges beside the weights."""
    init_logit_scale: float = 1 / 0.07
    parameters: dict[str, int] = field(default_factory=dict)
    """Expected parameter counts, `image` and `text`; a test holds the towers to them."""

    @classmethod
    def load(cls, name_or_path: PathLike) -> ModelConfig:
        """Read a model's TOML: the name of a shipped one (`pocket`) or a path.

        Raises:
            ConfigError: there is no such model, or the file does not describe one.
        """
        path = Path(name_or_path)
        if path.suffix != ".toml":
            path = CONFIGS / f"{name_or_path}.toml"
        if not path.is_file():
            raise ConfigError(f"no model named {name_or_path}: use a .toml path or one of {', '.join(model_names())}")
        try:
            return cls.from_dict(tomllib.loads(path.read_text("utf-8")))
        except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{path}: not a model description ({error})") from error

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> ModelConfig:
        """Build from the tables of a TOML file."""
        rest = dict(fields)
        return cls(
            image=ImageConfig(**rest.pop("image")),
            text=TextConfig(**rest.pop("text")),
            pixels=PixelRecipe.from_dict(rest.pop("pixels")),
            **rest,
        )


def model_names() -> list[str]:
    """Return the names of the shipped models, sorted."""
    return sorted(path.stem for path in CONFIGS.glob("*.toml"))
