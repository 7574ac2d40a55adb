"""The event loops, and the choice of the one that new hubs get."""

import os
import resource
import subprocess
import sys
import textwrap

import pytest
from conftest import require_program
from helpers import PATIENCE, python

import weald
import weald.aio
from weald import _core
from weald._core.loops import backends, ev, uv


@pytest.fixture(autouse=True)
def back_to_the_default():
    yield
    _core.get_hub().destroy()
    _core.set_loop_factory(None)


def fresh_hub():
    _core.get_hub().destroy()
    return _core.get_hub()


def test_the_names_of_the_loops_there_are():
    assert _core.loop_names() == ["libuv", "libev", "virtual"]


@pytest.mark.parametrize("name", _core.loop_names())
def test_new_hubs_get_the_loop_that_was_chosen(name):
    before = fresh_hub()
    _core.set_loop_factory(name)
    assert weald.get_hub() is before, "a hub keeps its loop"
    hub = fresh_hub()
    assert hub.loop.name == name
    with weald.Timeout(1000, False):
        weald.sleep(0.001)
    assert not hub.loop.destroyed
    hub.destroy()
    assert hub.loop.destroyed and "destroyed" in repr(hub) and "destroyed" in repr(hub.loop)


def test_none_goes_back_to_the_default():
    _core.set_loop_factory("virtual")
    _core.set_loop_factory(None)
    assert fresh_hub().loop.name == backends.make_loop(None).name != "virtual"


@pytest.mark.parametrize("name", _core.loop_names())
def test_the_environment_chooses_the_default(name):
    code = f"import os; os.environ['WEALD_LOOP'] = {name!r}; import weald; print(weald.get_hub().loop.name)"
    assert python(code) == f"{name}\n"


@pytest.mark.parametrize("path", [__file__, "/"])
@pytest.mark.parametrize("name", ["libuv", "libev"])
def test_what_epoll_refuses_is_refused(name, path):
    """A file that is always ready; libev would watch it, and find it ready for ever."""
    _core.set_loop_factory(name)
    fresh_hub()
    fd = os.open(path, os.O_RDONLY)
    loop = weald.aio.new_event_loop()
    try:
        with pytest.raises(PermissionError):
            loop.add_reader(fd, print)
    finally:
        loop.close()
        os.close(fd)


def test_a_name_that_is_not_known_changes_nothing():
    _core.set_loop_factory("virtual")
    with pytest.raises(ValueError, match="no event loop 'nonesuch'.*libuv, libev, virtual"):
        _core.set_loop_factory("nonesuch")
    assert fresh_hub().loop.name == "virtual"


def test_a_loop_that_was_left_out_of_the_build(monkeypatch):
    monkeypatch.setitem(backends.BACKENDS, "libev", ("weald._core.loops.nonesuch", "EvLoop"))
    assert _core.loop_names() == ["libuv", "virtual"]
    with pytest.raises(ValueError, match="no event loop 'libev' here; there are: libuv, virtual"):
        _core.set_loop_factory("libev")


@pytest.mark.parametrize("name", _core.loop_names())
def test_a_loop_that_is_destroyed_refuses_to_poll(name):
    loop = _core.EventLoop()
    loop.destroy()
    assert loop.destroyed and loop.fileno() == -1
    with pytest.raises(ValueError, match="destroyed"):
        loop.run()


def test_the_descriptor_to_wait_on_from_outside():
    _core.set_loop_factory("libuv")
    assert fresh_hub().loop.fileno() >= 0
    _core.set_loop_factory("virtual")
    assert fresh_hub().loop.fileno() == -1


@pytest.mark.parametrize("library", [uv, ev])
def test_a_backend_knows_the_version_of_its_library(library):
    version = library.version()  # type: ignore[attr-defined]
    assert all(part.isdigit() for part in version.split("."))


# ------------------------------------------------------------------ many descriptors

MANY = 1_100  # more than the 1,024 events that libuv takes from the kernel at a time
CROWD = f"""
    import os, resource, socket, sys
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    import weald
    from weald import _core

    pairs = [socket.socketpair() for _ in range({MANY})]
    watched = [_core.Descriptor(server.fileno()) for _, server in pairs]
    answered = 0

    def serve(descriptor, rounds):
        global answered
        for _ in range(rounds):
            descriptor.wait_read()
            os.write(descriptor.fd, os.read(descriptor.fd, 100))
            answered += 1

    def go(rounds):
        global answered
        answered = 0
        greenlets = [weald.spawn(serve, descriptor, rounds) for descriptor in watched]
        for turn in range(1, rounds + 1):
            weald.sleep(0)
            for client, _ in pairs:
                client.send(b"x")
            while answered < turn * len(pairs):
                weald.sleep(0)
            assert b"".join(client.recv(100) for client, _ in pairs) == b"x" * len(pairs)
        weald.joinall(greenlets, raise_error=True)
"""


@pytest.fixture
def descriptors():
    """Needs two descriptors for each of MANY connections."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < 2 * MANY + 200:
        pytest.skip(f"only {most} descriptors are allowed: ulimit -Hn")


def calls_for_rounds(loop, rounds, folder):
    """How many epoll_ctl calls it takes to wait for MANY descriptors that are all ready, so many times."""
    strace = require_program("strace", "strace")
    code = textwrap.dedent(CROWD) + f"\ngo({rounds})\n"
    done = subprocess.run(
        [strace, "-f", "-c", "-e", "trace=epoll_ctl", "-o", str(folder / "calls"), sys.executable, "-c", code],
        env={**os.environ, "WEALD_LOOP": loop},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if "ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    # Columns: % time, seconds, usecs/call, calls, errors if there are any, syscall.
    lines = [line.split() for line in (folder / "calls").read_text().splitlines()]
    return next(int(line[3]) for line in lines if line[-1:] == ["epoll_ctl"])


@pytest.mark.usefixtures("descriptors")
@pytest.mark.parametrize("name", ["libuv", "libev"])
def test_descriptors_that_are_read_again_and_again_stay_watched(name, tmp_path):
    """However many there are: each is reported once, and registered with the kernel once."""
    few, many = (calls_for_rounds(name, rounds, tmp_path) for rounds in (2, 6))
    assert few >= MANY
    assert many - few < MANY, "each of four more rounds told the kernel of descriptors that it knew"


@pytest.mark.usefixtures("descriptors")
@pytest.mark.parametrize("name", ["libuv", "libev"])
def test_many_descriptors_in_a_fork_and_to_the_end(name):
    code = f"""
        os.environ["WEALD_LOOP"] = {name!r}
        go(2)
        child = os.fork()
        if not child:
            go(2)
            for descriptor in watched:
                descriptor.close()
            again = _core.Descriptor(pairs[0][1].fileno())
            pairs[0][0].send(b"x")
            again.wait_read()
            os._exit(7 if pairs[0][1].recv(100) == b"x" else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        go(2)
        for descriptor in watched[::2]:
            descriptor.close()
        watched[::2] = [_core.Descriptor(server.fileno()) for _, server in pairs[::2]]
        go(2)
        for descriptor in watched:
            descriptor.close()
        weald.get_hub().destroy()
        left = {{os.path.realpath(f"/proc/self/fd/{{fd}}") for fd in os.listdir("/proc/self/fd")}}
        assert not [each for each in left if "anon_inode" in each], left
        print("done")
    """
    assert python(textwrap.dedent(CROWD) + textwrap.dedent(code)) == "done\n"
