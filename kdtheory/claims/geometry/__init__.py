"""Chapter 04 geometry: identities, one topology, long tails, the multinomial manifold."""
