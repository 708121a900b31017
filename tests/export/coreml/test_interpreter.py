"""The interpreter of Core ML programs: each operation in a separate program, compared with PyTorch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.coreml.interpreter import OPERATIONS, Program, rounded
from export.formats import ExportError
from export.quiet import quiet

with quiet():
    import coremltools as ct
    import coremltools.optimize.coreml as cto
    from coremltools.converters.mil import Builder as mb

SHAPE = (1, 8, 6, 6)


def package(function: Any, folder: Path, shape: tuple[int, ...] = SHAPE, half: bool = False) -> Path:
    """What coremltools makes of a function or a module."""

    class Module(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return function(x)

    module = function if isinstance(function, nn.Module) else Module()
    with quiet():
        program = torch.export.export(module.eval(), (torch.zeros(shape),)).run_decompositions({})
        made = ct.convert(
            program,
            inputs=[ct.TensorType(name="x", shape=shape, dtype=np.float32)],
            convert_to="mlprogram",
            minimum_deployment_target=ct.target.iOS16,
            compute_precision=ct.precision.FLOAT16 if half else ct.precision.FLOAT32,
            skip_model_load=True,
        )
        made.save(str(folder / "p.mlpackage"))
    return folder / "p.mlpackage"


def seeded(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for value in [*module.parameters(), *module.buffers()]:
        if value.is_floating_point():
            value.data = torch.rand(value.shape, generator=generator) + 0.1
    return module


CASES: dict[str, Any] = {
    "conv, padded, strided, grouped": lambda: nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=4),
    "conv, dilated, no bias": lambda: nn.Conv2d(8, 4, 3, dilation=2, bias=False),
    "batch norm": lambda: nn.BatchNorm2d(8),
    "layer norm": lambda: nn.LayerNorm(6),
    "linear": lambda: nn.Linear(6, 5),
    "average pool": lambda: nn.AvgPool2d(2),
    "max pool, padded": lambda: nn.MaxPool2d(3, stride=2, padding=1),
    "arithmetic": lambda: lambda x: (x + 2) * x - x / 3 + torch.maximum(x, -x) - torch.minimum(x, x * x),
    "activations": lambda: lambda x: F.relu(x) + F.silu(x) * torch.tanh(x) + torch.sigmoid(x) + F.leaky_relu(x, 0.2),
    "gelu": lambda: lambda x: F.gelu(x),
    "hard activations": lambda: lambda x: F.hardsigmoid(x) + F.hardswish(x) + F.relu6(3 * x) + x.clamp(-0.5, 0.5),
    "roots and powers": lambda: (
        lambda x: torch.sqrt(x * x + 1) + torch.rsqrt(x * x + 1) + torch.exp(-x) + (x * x) ** 0.7
    ),
    "erf": lambda: lambda x: torch.erf(x),
    "softmax": lambda: lambda x: torch.softmax(x, -1) + torch.softmax(x, 1),
    "reductions": lambda: lambda x: x.mean((2, 3)) + x.sum((2, 3)) + x.amax((2, 3)) + (x * x).sum((2, 3)),
    "unit length": lambda: lambda x: F.normalize(x, dim=1),
    "matmul of both": lambda: lambda x: x @ x.transpose(-1, -2),
    "attention, causal": lambda: lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
    "shapes": lambda: lambda x: x.flatten(2).unflatten(1, (2, 4)).permute(0, 2, 1, 3).unsqueeze(2).squeeze(0),
    "split, stack, concat": lambda: lambda x: torch.cat([*x.chunk(2, 1), torch.stack(list(x[0].split(4)))[:1]], 1),
    "slices": lambda: lambda x: x[:, 1:7:2, 0] + x[:, :3, 5],
    "padding": lambda: lambda x: F.pad(x, (1, 2, 0, 3), value=0.5),
    "where": lambda: lambda x: torch.where(x > 0.1, x, x * 2),
    "repeat": lambda: lambda x: x.repeat(1, 2, 1, 3),
    "casts and equality": lambda: lambda x: (x.to(torch.int32) == 0).to(torch.float32) * x,
}


@pytest.mark.parametrize("name", CASES)
def test_an_operation_equals_torch(name: str, tmp_path: Path) -> None:
    made = CASES[name]()
    function = seeded(made) if isinstance(made, nn.Module) else made
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    program = Program(package(function, tmp_path))
    with torch.inference_mode():
        expected = function.eval()(x) if isinstance(function, nn.Module) else function(x)
    (found,) = program({"x": x}).values()
    assert program.operations and found.shape == expected.shape
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("mode", "name"), [("TANH_APPROXIMATION", "tanh"), ("EXACT", "none")])
def test_gelu_in_the_mode_that_the_program_says(mode: str, name: str, tmp_path: Path) -> None:
    # Not through torch.export: coremltools 9.0 loses its keyword `approximate` there, and always writes the exact one.
    with quiet():

        @mb.program(input_specs=[mb.TensorSpec(shape=SHAPE)], opset_version=ct.target.iOS16)
        def gelu(x: Any) -> Any:
            return mb.gelu(x=x, mode=mode)

        made = ct.convert(gelu, convert_to="mlprogram", compute_precision=ct.precision.FLOAT32, skip_model_load=True)
        made.save(str(tmp_path / "gelu.mlpackage"))
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    (found,) = Program(tmp_path / "gelu.mlpackage")({"x": x}).values()
    torch.testing.assert_close(found, F.gelu(x, approximate=name), rtol=1e-4, atol=1e-5)


def test_values_of_fp16_are_rounded_after_every_operation(tmp_path: Path) -> None:
    program = Program(package(lambda x: (x * 1.001 + 0.1) * 3, tmp_path, half=True))
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    half = x.half()
    expected = ((half * torch.tensor(1.001).half() + torch.tensor(0.1).half()) * torch.tensor(3.0).half()).float()
    (found,) = program({"x": x}).values()
    assert torch.equal(found, expected) and not torch.equal(found, (x * 1.001 + 0.1) * 3)
    assert rounded(torch.tensor([1e-9, 1e6, 1 / 3]), "fp16").tolist() == [0, float("inf"), 0.333251953125]


@pytest.mark.parametrize("kind", ["int8", "palette"])
def test_compressed_weights_are_those_that_the_formula_gives(kind: str, tmp_path: Path) -> None:
    layer = seeded(nn.Linear(64, 64, bias=False))
    path = package(layer, tmp_path, (1, 64))
    with quiet():
        model = ct.models.MLModel(str(path), skip_model_load=True)
        if kind == "int8":
            config: Any = cto.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=16)
            made = cto.linear_quantize_weights(model, cto.OptimizationConfig(global_config=config))
        else:
            config = cto.OpPalettizerConfig(mode="uniform", nbits=6, weight_threshold=16)
            made = cto.palettize_weights(model, cto.OptimizationConfig(global_config=config))
        made.save(str(tmp_path / "small.mlpackage"))
    program = Program(tmp_path / "small.mlpackage")
    stored = torch.stack([program({"x": row[None]})[program.outputs[0]][0] for row in torch.eye(64)], 1)
    weight = layer.weight.detach()
    if kind == "int8":
        scale = weight.abs().amax(dim=1, keepdim=True) / 127
        torch.testing.assert_close(stored, (weight / scale).round() * scale, rtol=1e-3, atol=1e-6)
    else:
        step = (weight.max() - weight.min()) / 63
        assert len(stored.unique()) <= 64 and (stored - weight).abs().max() <= step / 2 * 1.001
    assert not torch.equal(stored, weight)


def test_unknown_operations_and_wrong_inputs_are_refused(tmp_path: Path) -> None:
    with quiet():

        @mb.program(input_specs=[mb.TensorSpec(shape=(4,))], opset_version=ct.target.iOS16)
        def atan(x: Any) -> Any:
            return mb.atan(x=x)

        ct.convert(atan, convert_to="mlprogram", skip_model_load=True).save(str(tmp_path / "atan.mlpackage"))
    assert "atan" not in OPERATIONS
    with pytest.raises(ExportError, match="doesn't know the operation atan"):
        Program(tmp_path / "atan.mlpackage")
    program = Program(package(torch.relu, tmp_path))
    with pytest.raises(ValueError, match="the program takes"):
        program({"x": torch.zeros(2, 2)})
