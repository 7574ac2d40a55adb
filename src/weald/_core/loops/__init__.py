"""Event loops: what the hub requires of one (`contract`), their list (`backends`), and each in a file of its own.

`uv` and `ev` watch descriptors with epoll, through libuv and libev; `virtual` has a clock that jumps, for tests.

Called by: hub.pyx, through `backends.make_loop`.
"""
