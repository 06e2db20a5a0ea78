"""Whole transfers over real sockets: what must arrive, what may go wrong, and what a hostile peer may try."""
