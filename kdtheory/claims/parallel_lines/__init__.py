"""Chapter 01: the parallel lines of the Wasserstein GAN paper; where the argument holds and where it does not."""
