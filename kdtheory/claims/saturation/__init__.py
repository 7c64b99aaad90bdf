"""Chapter 03 saturation: which losses stall, and for how long."""
