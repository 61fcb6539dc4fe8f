from mixmerge import TensorStack, hookimpl, merger

@merger(name="sign_mean", version="1", source="arXiv:2306.01708, sections 4.2-4.3, without the trim")
def sign_mean(t: TensorStack, *, scale: float = 1.0):
    """t.deltas is (experts, *shape), t.weights (experts, 1, …); returns (*shape)."""
    votes = t.weights * t.deltas
    agree = votes.sign() == votes.sum(0).sign()
    kept = (votes * agree).sum(0) / (t.weights * agree).sum(0).clamp(min=1e-8)
    return t.base + scale * kept

@hookimpl
def register_mergers():
    return [sign_mean]
