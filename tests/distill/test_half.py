"""Half precision: what it changes, and what it doesn't."""

import pytest
import torch
import torch.nn.functional as F

from distill.half import half_precision


def test_float32_changes_nothing() -> None:
    rows = torch.randn(4, 8)
    with half_precision("cpu", "fp32"):
        assert (rows @ rows.T).dtype == torch.float32


def test_products_are_bfloat16_and_only_inside() -> None:
    rows = torch.randn(4, 8)
    with half_precision("cpu", "bf16"):
        assert (rows @ rows.T).dtype == torch.bfloat16
    assert (rows @ rows.T).dtype == torch.float32


@pytest.mark.parametrize("causal", [False, True])
def test_attention_and_its_gradient_come_close_to_float32(causal: bool) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, 2, 7, 16) for _ in range(3))
    results = []
    for precision in ("fp32", "bf16"):
        inputs = [part.clone().requires_grad_(True) for part in (q, k, v)]
        with half_precision("cpu", precision):
            attended = F.scaled_dot_product_attention(*inputs, is_causal=causal)
        attended.float().square().sum().backward()
        gradients = [part.grad for part in inputs if part.grad is not None]
        assert len(gradients) == 3
        results.append(torch.cat([attended.float().flatten(), *(gradient.flatten() for gradient in gradients)]))
    exact, half = results
    assert not torch.equal(exact, half)
    assert float(((exact - half).norm() / exact.norm()).detach()) < 0.02


def test_attention_on_the_cpu_is_not_the_fused_one() -> None:
    q = torch.randn(1, 1, 4, 8, requires_grad=True)
    fused = F.scaled_dot_product_attention(q, q, q)
    with half_precision("cpu", "bf16"):
        plain = F.scaled_dot_product_attention(q, q, q)
    assert "Flash" in type(fused.grad_fn).__name__ and "Flash" not in type(plain.grad_fn).__name__
