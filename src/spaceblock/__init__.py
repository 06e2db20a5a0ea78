"""Send and receive files, folders and buffers between two computers over QUIC."""

__version__ = "0.1.0"
