"""Chapter 05 modes: mean- and mode-seeking, capacity, head and tail."""
