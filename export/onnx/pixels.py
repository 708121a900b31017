"""ONNX image towers that take bytes, as from a camera or decoder, and do the pixel recipe's arithmetic inside."""

from __future__ import annotations

import json
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.onnx.weights import finished
from mobileclip.preprocess import PixelRecipe

_KEY: Final = "pixel_recipe"


def with_recipe(data: bytes, recipe: PixelRecipe) -> bytes:
    """Write the pixel recipe into a tower's metadata, where `take_bytes` finds it."""
    model = onnx.load_from_string(data)
    helper.set_model_props(model, {_KEY: json.dumps(recipe.to_dict())})
    kept: bytes = model.SerializeToString()
    return kept


def take_bytes(data: bytes) -> bytes:
    """Let a tower that takes normalized pixels, float32 (n, 3, s, s), take uint8 (n, s, s, 3) instead.

    The vectors are the same except for rounding in the last bits. The tower itself doesn't change, nor its precision.
    """
    model = onnx.load_from_string(data)
    (stored,) = (entry.value for entry in model.metadata_props if entry.key == _KEY)
    recipe = PixelRecipe.from_dict(json.loads(stored))
    given = model.graph.input[0]
    name, scaled = given.name, f"{given.name}_scaled"
    for node in model.graph.node:
        for position, read in enumerate(node.input):
            if read == name:
                node.input[position] = scaled
    mean, std = (np.asarray(values, np.float64).reshape(1, 3, 1, 1) for values in (recipe.mean, recipe.std))
    constants = {"pixel_scale": 1 / (255 * std), "pixel_shift": -mean / std}
    model.graph.initializer.extend(
        numpy_helper.from_array(value.astype(np.float32), key) for key, value in constants.items()
    )
    nodes = [
        helper.make_node("Cast", [name], [f"{name}_float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", [f"{name}_float"], [f"{name}_planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", [f"{name}_planes", "pixel_scale"], [f"{name}_levels"]),
        helper.make_node("Add", [f"{name}_levels", "pixel_shift"], [scaled]),
        *model.graph.node,
    ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    size = recipe.size
    free = given.type.tensor_type.shape.dim[0].dim_param or "n"
    given.CopyFrom(helper.make_tensor_value_info(name, TensorProto.UINT8, [free, size, size, 3]))
    return finished(model)
