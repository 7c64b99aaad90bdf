"""Chapter 02: gradients of divergences in q, in logits and per drawn token, as printed and as they are."""

from kdtheory.claims.gradients import chain_rule, forward_kl, reverse_kl, skew_kl, total_variation, wasserstein

__all__ = ["chain_rule", "forward_kl", "reverse_kl", "skew_kl", "total_variation", "wasserstein"]
