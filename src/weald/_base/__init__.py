"""Code that several public modules share: originals, settings, waiting for descriptors, pipes, children.

Called by: every module above.  The modules here import `weald._core` and each other, and nothing else of weald.
"""
