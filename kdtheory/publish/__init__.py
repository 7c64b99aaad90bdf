"""What readers see: text that is generated from stored evidence."""
