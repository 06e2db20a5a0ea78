"""The native packet path: from a handshake's confirmation on, these modules carry packets without Python."""
