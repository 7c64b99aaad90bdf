"""Chapter 01: the parallel lines of the Wasserstein GAN paper; where the argument holds and where it does not."""

from kdtheory.claims.parallel_lines import figure, lines, smoothed, softmax_students

__all__ = ["figure", "lines", "smoothed", "softmax_students"]
