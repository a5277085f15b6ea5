"""What can go wrong with a server of our own; every message says what to do next.

EmbeddedError
 ├── MissingBinaryError      no usable server program on this machine
 ├── DirectoryInUseError     another process runs a server in this directory
 └── ServerError             a server did not start, or did not stop
"""


class EmbeddedError(Exception):
    """An embedded server cannot do what was asked."""


class MissingBinaryError(EmbeddedError):
    """No usable server program was found on this machine."""


class DirectoryInUseError(EmbeddedError):
    """Another manager holds the directory, in this process or in another."""


class ServerError(EmbeddedError):
    """A server did not start or did not stop; the message ends with the tail of its log."""
