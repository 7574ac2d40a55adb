"""What makes other projects' programs run on weald: a module for each.

Called by: no module; users import those in it.
"""
