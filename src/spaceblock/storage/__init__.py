"""Where bytes come from and go to: files and callers' buffers, read and written off the event loop."""
