"""The native engine, layer by layer."""
