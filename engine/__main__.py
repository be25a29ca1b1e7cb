"""The process of the ``hlbt`` command: from its first import to its end Ctrl-C leaves one line and no traceback."""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from types import FrameType


def _stop(number: int, frame: FrameType | None) -> None:
    """End at once: nothing has begun, or all has ended."""
    os.write(2, b"hlbt: interrupted.\n")
    os._exit(130)


def main() -> None:
    """Run the command line; Ctrl-C during its imports and at the interpreter's end is answered, too."""
    usual = signal.getsignal(signal.SIGINT)
    if usual is not signal.default_int_handler:  # ignored, as a shell does for what runs in the background
        import_module("engine.cli").main()
        return
    signal.signal(signal.SIGINT, _stop)
    run = import_module("engine.cli").main
    # Where Python cannot raise it, in a finaliser or a callback, it would be shown as a traceback and forgotten.
    shown = sys.unraisablehook

    def unraisable(what: sys.UnraisableHookArgs) -> None:
        if issubclass(what.exc_type, KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        else:
            shown(what)

    sys.unraisablehook = unraisable
    try:
        signal.signal(signal.SIGINT, usual)
        run()
    finally:
        signal.signal(signal.SIGINT, _stop)


if __name__ == "__main__":
    main()
