import os
import signal
import subprocess
import sys

from llmtrain.process.signals import STOP_SIGNALS, StopRequest


def test_the_first_signal_sets_the_flag() -> None:
    previous = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        request = StopRequest()
        request.install()
        assert request.signal_name is None
        os.kill(os.getpid(), signal.SIGUSR1)
        is_set: bool = request.is_set
        assert is_set
        assert request.signal_name == "SIGUSR1"
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def test_the_second_signal_ends_the_process_at_once() -> None:
    code = (
        "import os, signal; from llmtrain.process.signals import StopRequest; r = StopRequest(); r.install();"
        "os.kill(os.getpid(), signal.SIGTERM); os.kill(os.getpid(), signal.SIGTERM)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30)
    assert result.returncode == 128 + signal.SIGTERM
    assert b"second signal stops at once" in result.stderr
