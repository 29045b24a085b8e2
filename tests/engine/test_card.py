"""What only a graphics card does: one kernel for all segments of a pack, in 16 bits and without capped scores."""

import pytest
import torch

from studio.engine import attention, loss
from studio.engine.tensors import packed_batch
from studio.engine.trainer import loss_of
from tests.engine.test_attention import model_of, rows_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
CARD = torch.device("cuda")


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_one_kernel_attends_as_each_segment_alone(groups, window):
    torch.manual_seed(0)
    lengths, width = [7, 20, 1, 30], 16
    shapes = [(1, heads, sum(lengths), width) for heads in (4, groups, groups)]
    parts = [torch.randn(shape, device=CARD, dtype=torch.bfloat16, requires_grad=True) for shape in shapes]
    assert attention._flashes(parts[0], parts[2])
    one = attention._flash(*parts, lengths, width**-0.5, window)
    exact = attention.Segments.apply(*(part.double() for part in parts), lengths, width**-0.5, window, None)
    torch.testing.assert_close(one.double(), exact, rtol=2e-2, atol=2e-2)
    slope = torch.randn_like(one)
    found = torch.autograd.grad(one, parts, slope)
    wanted = torch.autograd.grad(exact, parts, slope.double())
    for its, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(its, theirs, rtol=5e-2, atol=5e-2)


@pytest.mark.parametrize("kind", attention.ARCHITECTURES)
def test_a_card_finds_the_loss_the_processor_finds(kind):
    model, batch = model_of(kind), packed_batch(rows_of([7, 20, 3, 12]))
    expected = float(loss.packed(model, batch))
    assert float(loss_of(model.to(CARD), batch, CARD)) == pytest.approx(expected, rel=1e-4)
    half = float(loss_of(model.to(torch.bfloat16), batch, CARD))
    assert half == pytest.approx(expected, rel=2e-2)
