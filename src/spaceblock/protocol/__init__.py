"""The protocol as sans-IO state machines: messages in, events and messages out; no clock, socket, file or await."""
