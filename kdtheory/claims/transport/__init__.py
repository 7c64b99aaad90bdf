"""Chapter 07 transport: optimal transport between token distributions, exact, regularised, truncated and published."""
