"""Event loops: what the hub wants of one (`contract`), those there are (`backends`), and each in a file of its own.

`uv` and `ev` watch descriptors with epoll, through libuv and libev; `virtual` has a clock that jumps, for tests.

Called by: hub.pyx, through `backends.make_loop`.
"""
