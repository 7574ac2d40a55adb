"""What makes other projects' programs run on weald: a module for each."""
