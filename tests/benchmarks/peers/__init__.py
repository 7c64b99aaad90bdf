"""Peers on trial: their values and gradients against a reference in extended precision, and what zero masses do."""
