"""The process of the ``hlbt`` command: from its first import to its end Ctrl-C leaves one line and no traceback."""

from __future__ import annotations

import atexit
import gc
import signal
import sys
from importlib import import_module

from engine import _stop


def _as_usual(phase: str, _info: object) -> None:
    """After the first look for garbage: the next ones are sooner."""
    if phase == "stop":
        gc.callbacks.remove(_as_usual)
        gc.set_threshold(20_000)


def main() -> None:
    """Run the command line; Ctrl-C during its imports and at the interpreter's end is answered, too."""
    # What imports build stays, and a short command builds little else: it ends before anybody looks for garbage, and
    # is not looked through at its end either. Together that took a fifth of it.
    gc.set_threshold(1_000_000)
    gc.callbacks.append(_as_usual)
    atexit.register(gc.freeze)
    usual = signal.default_int_handler
    if signal.getsignal(signal.SIGINT) not in (usual, _stop):
        # Ignored, as a shell does for what runs in the background.
        import_module("engine.cli").main()
        return
    signal.signal(signal.SIGINT, _stop)
    run = import_module("engine.cli").main
    # Where Python cannot raise it, in a finaliser or a callback, it would be shown as a traceback and forgotten. Raised
    # in the hook it would be lost as well, so an alarm sends it a moment later.
    shown = sys.unraisablehook

    def unraisable(what: sys.UnraisableHookArgs) -> None:
        if issubclass(what.exc_type, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.01)
        else:
            shown(what)

    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    sys.unraisablehook = unraisable
    try:
        signal.signal(signal.SIGINT, usual)
        run()
    finally:
        signal.signal(signal.SIGINT, _stop)


if __name__ == "__main__":
    main()
