"""Chapter 01: the parallel lines of the Wasserstein GAN paper; where the argument holds and where it does not."""

from kdtheory.claims.parallel_lines import figure, lines, moving, sequences, smoothed, softmax_students, truncation

__all__ = ["figure", "lines", "moving", "sequences", "smoothed", "softmax_students", "truncation"]
