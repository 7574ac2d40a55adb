"""Modules by which programs of other projects run on weald, one for each.

Called by: no module; users import those in it.
"""
