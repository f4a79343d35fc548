"""Fixtures of the tests of recordings."""

from recorded import built  # noqa: F401 (a fixture)
