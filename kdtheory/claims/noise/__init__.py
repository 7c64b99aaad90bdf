"""Chapter 06 noise: bias and variance of what is estimated from samples."""
