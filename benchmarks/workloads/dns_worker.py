"""Child process of one side: says it is ready, then answers each line `COUNT DELAY` with a line of JSON.

Started by `lookups` with the side's own interpreter: `dns_worker.py PACKAGE CORE OTHER_CORE`.  It enters namespaces
of its own (network, mounts), where resolv.conf names a server, `network_other.py` on OTHER_CORE: so the C library asks
it, too.  COUNT names are looked up at once; each answer comes DELAY seconds after its question.
"""

import ctypes
import fcntl
import json
import os
import resource
import socket as plain
import struct
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).parent
INSIDE = "LOOKUPS_INSIDE"
ADDRESS = "127.77.0.1"


def enter_namespaces() -> None:
    """Become a process whose network and whose resolv.conf are its own."""
    if os.environ.get(INSIDE) != "yes":
        kinds = ["-m", "-n"] if os.geteuid() == 0 else ["-r", "-m", "-n"]
        os.execvpe("unshare", ["unshare", *kinds, sys.executable, *sys.argv], {**os.environ, INSIDE: "yes"})
    with plain.socket(plain.AF_INET, plain.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sH14x", b"lo", 0x49))  # SIOCSIFFLAGS: up, loopback, running
    libc = ctypes.CDLL(None, use_errno=True)
    files = {"resolv.conf": f"nameserver {ADDRESS}\noptions timeout:30\n", "hosts": "127.0.0.1 localhost\n"}
    for name, text in files.items():
        with tempfile.NamedTemporaryFile("w") as file:  # the mount holds it
            file.write(text)
            file.flush()
            if libc.mount(file.name.encode(), f"/etc/{name}".encode(), None, 4096, None):  # MS_BIND
                raise OSError(ctypes.get_errno(), f"cannot mount a file on /etc/{name}")


def main() -> None:
    """See the module's docstring."""
    enter_namespaces()
    package, core, other_core = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if core >= 0:
        os.sched_setaffinity(0, {core})
    library, sockets = import_module(package), import_module(f"{package}.socket")
    print("ready", flush=True)
    rounds = 0
    for line in sys.stdin:
        count, delay = line.split()
        pin = (lambda: os.sched_setaffinity(0, {other_core})) if other_core >= 0 else None
        command = [sys.executable, str(HERE / "network_other.py"), "dns", ADDRESS, "53", delay]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=pin)
        assert server.stdout
        server.stdout.readline()
        sockets.getaddrinfo("first.example", 80, plain.AF_INET)  # what is made once is made
        rounds += 1
        names = [f"name{i}.round{rounds}.example" for i in range(int(count))]
        before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        jobs = [library.spawn(sockets.getaddrinfo, name, 80, plain.AF_INET) for name in names]
        library.joinall(jobs)
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        failed = sum(not job.successful() for job in jobs)
        print(json.dumps({"cpu": cpu, "wall": wall, "failed": failed}), flush=True)
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
