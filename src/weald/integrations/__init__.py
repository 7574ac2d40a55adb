"""What makes other projects' programs run on weald: a module for each.

Called by: nobody; users import the modules in it.
"""
