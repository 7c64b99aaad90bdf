"""Chapter 02: gradients of divergences in q, in logits and per drawn token, as printed and as they are."""
