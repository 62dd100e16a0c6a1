"""Standard output of the command: what cannot be written is reported once, and names cannot control the terminal."""

import errno
import io
import os
import re
import sys

from extremal.file_checks import CONTROL_CHARACTERS

_ALLOWED = re.compile(rf"(\x1b\[[0-9;]*m|[\t\n])|[{CONTROL_CHARACTERS}]")  # colours, or other control characters


class CheckedOutput(io.TextIOWrapper):
    """Standard output that drops what its stream does not take, and keeps the first error.

    A command continues if a pipe is closed or a disk is full: its results are files, and printing comes last. In a
    terminal, control characters of names and labels are replaced; colours are kept.
    """

    error: OSError | None = None

    def write(self, text: str) -> int:
        """Write a text, and return its length."""
        try:
            super().write(_ALLOWED.sub(lambda found: found[1] or "\ufffd", text) if self.isatty() else text)
        except OSError as error:
            self._drop(error)
        return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        try:
            super().flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        """Keep the error, and send what follows, and what is buffered, nowhere."""
        self.error = self.error or error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)

    def find_reason(self) -> str:
        """Return why results could not be printed; empty if they were, or if their reader has closed the pipe."""
        self.flush()
        if self.error is None or self.error.errno == errno.EPIPE:
            return ""
        return self.error.strerror or type(self.error).__name__


def check_output_stream() -> CheckedOutput | None:
    """Replace standard output by a `CheckedOutput`, and return it; None if the command has none."""
    stream = sys.stdout
    if not isinstance(stream, io.TextIOWrapper):  # closed, or not a file
        return None
    stream.flush()
    encoding, line_buffering = stream.encoding, stream.line_buffering
    output = CheckedOutput(stream.detach(), encoding, errors="replace", line_buffering=line_buffering)
    sys.stdout = output
    return output
