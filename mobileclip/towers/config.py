"""Model configurations: one TOML per model, read into frozen dataclasses that validate themselves."""

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
class AttentionConfig:
    """Attention pooling over the trunk's last feature maps, see `mobileclip.towers.attention_pool`."""

    side: int
    """Places along each side of the last feature map, for which positions are learned: 9 for 260 pixels and a trunk
    with stride 32. For pictures of another size, positions are interpolated."""
    maps: int = 2
    """Number of feature maps, the trunk's last ones, each at another resolution."""
    width: int = 256
    """Width of the layer."""
    heads: int = 8
    """Number of attention heads, which divides the width."""
    queries: int = 1
    """Number of learned queries. Their outputs are joined before the projection."""
    drop_places: float = 0.33
    """Share of the places that a photo lacks in training."""
    dropout: float = 0.1
    """Dropout inside the layer and before its projection, 0 to 1."""

    def __post_init__(self) -> None:
        if min(self.side, self.maps, self.width, self.heads, self.queries) < 1 or self.width % self.heads:
            raise ConfigError("image.attention: all sizes must be at least 1, and width a multiple of heads")
        if not (0 <= self.drop_places < 1 and 0 <= self.dropout < 1):
            raise ConfigError("image.attention: drop_places and dropout must lie in [0, 1)")


@dataclass(frozen=True)
class ImageConfig:
    """An image tower: a timm model, a linear projection, and optional branches parallel to the projection."""

    trunk: str
    """Name of a timm model, such as `tf_efficientnet_lite0`."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the timm model, such as its depth."""
    bias: bool = False
    """Whether the projection has a bias, as in towers whose projection is the trunk's own classifier."""
    dropout: float = 0.0
    """Dropout on the pooled features before the projection, and inside `hidden`."""
    hidden: int = 0
    """Width of an MLP parallel to the projection, whose output is added to the projection's; 0 for none."""
    attention: AttentionConfig | None = None
    """Attention pooling, whose unit vector is added to that of the pooled features; None for none."""
    classes: int = 0
    """Classes of a classifier on the pooled features; 0 for none. The mean of the classes' vectors, weighted by their
    probabilities (ConSE, Norouzi et al. 2014), is added to the unit vector from the other branches."""
    class_share: float = 0.5
    """Length of the classifier's vector in that sum, where the other vector has length 1."""

    @property
    def head_has_branches(self) -> bool:
        """Whether the head has more than a linear projection."""
        return bool(self.hidden or self.classes or self.attention)

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
    """Whether a token sees only earlier tokens. Trailing padding may be dropped for a causal tower."""
    activation: Literal["gelu", "quick_gelu"] = "gelu"
    """Of the MLPs. OpenAI's weights and some of DFN's were trained with `quick_gelu`, x · sigmoid(1.702 x)."""
    repmixers: bool = False
    """A convolutional block before the first layer and another after the last, as in MobileCLIP-S0 (version 1)."""
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ConfigError(f"text width {self.width} is not a multiple of {self.heads} heads")
        if self.context_length < 3 or self.layers < 1 or self.vocab_size < 515:
            raise ConfigError("text tower: context_length ≥ 3, layers ≥ 1 and vocab_size ≥ 515 are needed")
        if self.activation not in ("gelu", "quick_gelu"):
            raise ConfigError(f"text tower: activation must be gelu or quick_gelu, not {self.activation!r}")
        if self.repmixers and self.causal:
            raise ConfigError("text tower: RepMixer blocks see later tokens, so the tower cannot be causal")


@dataclass(frozen=True)
class ModelConfig:
    """Both towers, their embedding space, and the image tower's pixel recipe."""

    name: str
    embed_dim: int
    image: ImageConfig
    text: TextConfig
    pixels: PixelRecipe
    tokenizer: Literal["own", "openai"] = "own"
    """`openai`: CLIP's 49,408 tokens, with merges from open_clip; `own`: merges in a file next to the weights."""
    init_logit_scale: float = 1 / 0.07
    parameters: dict[str, int] = field(default_factory=dict)
    """Expected parameter counts of `image` and `text`; a test checks them."""

    @classmethod
    def load(cls, name_or_path: PathLike) -> ModelConfig:
        """Read a model's TOML, by the name of a shipped model (`pocket`) or by path.

        Raises:
            ConfigError: there is no such model, or the file isn't a model configuration.
        """
        path = Path(name_or_path)
        if path.suffix != ".toml":
            path = CONFIGS / f"{name_or_path}.toml"
        if not path.is_file():
            raise ConfigError(f"no model named {name_or_path}: use a .toml path or one of {', '.join(model_names())}")
        try:
            return cls.from_dict(tomllib.loads(path.read_text("utf-8")))
        except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{path}: not a model configuration ({error})") from error

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> ModelConfig:
        """Build a configuration from the tables of a TOML file."""
        rest = dict(fields)
        image = dict(rest.pop("image"))
        if attention := image.pop("attention", None):
            image["attention"] = AttentionConfig(**attention)
        return cls(
            image=ImageConfig(**image),
            text=TextConfig(**rest.pop("text")),
            pixels=PixelRecipe.from_dict(rest.pop("pixels")),
            **rest,
        )


def model_names() -> list[str]:
    """Return the names of the shipped models, sorted."""
    return sorted(path.stem for path in CONFIGS.glob("*.toml"))
