import torch
import torch.nn.functional as F

from quatrain.backbone.perplexity import kl_divergence


def test_the_divergence_is_torch_s_and_a_token_that_is_ruled_out_adds_nothing():
    want, got = (torch.randn(3, 7, 50).log_softmax(-1) for _ in range(2))
    expected = F.kl_div(got.double(), want.double(), reduction="none", log_target=True).sum(-1)
    found = kl_divergence(want, got)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
    pruned = torch.full_like(want[..., :1], -torch.inf)
    both = (torch.cat([logs, pruned], -1) for logs in (want, got))
    torch.testing.assert_close(kl_divergence(*both), found)
