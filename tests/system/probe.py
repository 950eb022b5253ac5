"""A command that tells what a process sees of the world, as JSON. It needs nothing but the standard library."""

import atexit
import json
import os
import random
import resource
import signal
import sys
import threading
import time
import weakref
from pathlib import Path

from pipeline.system.startup import begin, run


def seen() -> dict[str, object]:
    return {
        "arguments": sys.argv[1:],
        "orig_argv": sys.orig_argv[1:],
        "name": Path(sys.argv[0]).name,
        "path": sys.path[:2],
        "folder": str(Path.cwd()),
        "environment": {name: value for name, value in os.environ.items() if name.startswith("PROBE_")},
        "umask": os.umask(0o22),
        "cpus": sorted(os.sched_getaffinity(0)),
        "files": resource.getrlimit(resource.RLIMIT_NOFILE),
        "stdin": sys.stdin.read() if sys.stdin else None,
        "encodings": [stream and [stream.encoding, stream.errors] for stream in (sys.stdin, sys.stdout, sys.stderr)],
        "buffering": [stream and stream.line_buffering for stream in (sys.stdout, sys.stderr)],
        "ignored": [number for number in range(1, 32) if signal.getsignal(number) is signal.SIG_IGN],
        "is_leader": os.getsid(0) == os.getpid(),
        "bytecode": sys.dont_write_bytecode,
        "open": os.environ.get("PROBE_FD") and os.read(int(os.environ["PROBE_FD"]), 100).decode(),
    }


def main() -> None:
    random_number = random.random()
    print(json.dumps(seen() | {"random": random_number}))
    match sys.argv[1:]:
        case ["exit", code]:
            sys.exit(int(code))
        case ["exit_words"]:
            sys.exit("in words")
        case ["raise"]:
            raise ZeroDivisionError("ours")
        case ["killed", number]:
            sys.stdout.flush()
            os.kill(os.getpid(), int(number))
        case ["interrupt"]:
            raise KeyboardInterrupt
        case ["last_words"]:
            atexit.register(print, "atexit")
            weakref.finalize(seen, print, "finalized")
            threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()


if __name__ == "__main__":
    begin("pipeline.probe", sys.argv[1:])
    run(main)
