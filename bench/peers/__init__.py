"""What Spaceblock is compared with; each peer is a small module here, and :mod:`compare` runs whatever is installed."""
