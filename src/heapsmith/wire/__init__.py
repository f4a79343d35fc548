"""The bytes shared with native code, written once: counters, events, control; the C++ header is rendered from here."""
