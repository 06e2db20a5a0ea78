"""A tutorial: one task a file, over real sockets and with real files. Start with ``test_01_send_a_file.py``."""
