"""Bytes as the protocol takes them: anything that can be read without a copy."""

Buffer = bytes | bytearray | memoryview
