"""A folder laid out like the hub's repositories of ready CLIP towers, and the very model that it was made of."""

import json
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from mobileclip.tokenizer import Tokenizer
from tests.app.cli.conftest import image_tower

SIZE, DIM, LENGTH = 64, 24, 77

# What the repositories themselves hold, at a smaller size.
PREPROCESSOR = {
    "crop_size": {"height": SIZE, "width": SIZE},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "CLIPImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": SIZE},
}


@dataclass
class Clip:
    """The folder, and transformers' own model and tokenizer."""

    folder: Path
    model: Any
    tokenizer: Any

    def copy(self, to: Path) -> Path:
        return shutil.copytree(self.folder, to)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """A random CLIP of transformers with OpenAI's tokenizer, written as its users publish such models."""
    import torch
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("hub") / "clip-tiny"
    (folder / "onnx").mkdir(parents=True)
    openai = SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(symbol, symbol): number for symbol, number in openai.encoder.items()}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=list(openai.bpe_ranks), model_max_length=LENGTH)
    tokenizer.save_pretrained(folder)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    marks = {"bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407}
    config = CLIPConfig(
        text_config={**shape, **marks, "vocab_size": 49408, "max_position_embeddings": LENGTH},
        vision_config={**shape, "image_size": SIZE, "patch_size": 16},
        projection_dim=DIM,
    )
    torch.manual_seed(0)
    model = CLIPModel(config).eval()
    model.set_attn_implementation("eager")
    with torch.no_grad():  # as it is drawn, all inputs would give nearly one vector
        for weights in model.parameters():
            weights.mul_(4 if weights.ndim > 1 else 1)
    config.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    export_towers(model, folder / "onnx")
    return Clip(folder, model, tokenizer)


def export_towers(model: Any, folder: Path) -> None:
    """Write both towers with the inputs and outputs that the hub's exports have."""
    import torch

    class Text(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            found = self.model.text_model(input_ids=input_ids)
            return self.model.text_projection(found.pooler_output), found.last_hidden_state

    class Image(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            found = self.model.vision_model(pixel_values=pixel_values)
            return self.model.visual_projection(found.pooler_output), found.last_hidden_state

    tokens = torch.tensor([[49406, 320, 1125, 49407, 0, 0]] * 2)
    for tower, example, given, name, free in (
        (Text(), tokens, "input_ids", "text", {0: "batch_size", 1: "sequence_length"}),
        (Image(), torch.zeros(2, 3, SIZE, SIZE), "pixel_values", "image", {0: "batch_size"}),
    ):
        file = folder / ("vision_model.onnx" if name == "image" else "text_model.onnx")
        with warnings.catch_warnings():  # the older exporter, because it is the one that the hub's towers came from
            warnings.simplefilter("ignore")
            torch.onnx.export(
                tower,
                (example,),
                file,
                input_names=[given],
                output_names=[f"{name}_embeds", "last_hidden_state"],
                dynamic_axes={given: free, f"{name}_embeds": {0: "batch_size"}},
                dynamo=False,
            )


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the same layout and a few kilobytes, for what does not depend on how good a model is."""
    folder = tmp_path_factory.mktemp("hub") / "clip-tiny"
    (folder / "onnx").mkdir(parents=True)
    tokenizer = Tokenizer([("d", "o"), ("do", "g</w>")], LENGTH)
    marks = {"<|startoftext|>": tokenizer.sot, "<|endoftext|>": tokenizer.eot}
    model = {"type": "BPE", "end_of_word_suffix": "</w>", "merges": ["d o", "do g</w>"]}
    model["vocab"] = {**tokenizer.vocabulary, **marks}
    files = {
        "tokenizer.json": {"model": model, "normalizer": {"type": "Lowercase"}},
        "tokenizer_config.json": {"model_max_length": LENGTH},
        "config.json": {"model_type": "clip"},
        "preprocessor_config.json": PREPROCESSOR,
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "onnx" / "text_model.onnx").write_bytes(text_graph(symbols=tokenizer.vocab_size, dim=12))
    (folder / "onnx" / "vision_model.onnx").write_bytes(image_tower(SIZE, 12))
    return folder


def text_graph(*, mask: bool = False, length: int | str = "length", dim: int = DIM, symbols: int = 49408) -> bytes:
    """A text tower that looks both ways: the sum over all tokens, or over those that the mask lets through."""
    rng = np.random.default_rng(3)
    table = numpy_helper.from_array(rng.normal(size=(symbols, dim)).astype(np.float32), "table")
    axes = numpy_helper.from_array(np.array([1], np.int64), "axes")
    last = numpy_helper.from_array(np.array([2], np.int64), "last")
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["rows"])]
    inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n", length])]
    rows = "rows"
    if mask:
        inputs.append(helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["n", length]))
        nodes += [
            helper.make_node("Cast", ["attention_mask"], ["flags"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["flags", "last"], ["column"]),
            helper.make_node("Mul", ["rows", "column"], ["kept"]),
        ]
        rows = "kept"
    nodes.append(helper.make_node("ReduceSum", [rows, "axes"], ["text_embeds"], keepdims=0))
    outputs = [helper.make_tensor_value_info("text_embeds", TensorProto.FLOAT, ["n", dim])]
    graph = helper.make_graph(nodes, "text", inputs, outputs, [table, axes, last])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())
