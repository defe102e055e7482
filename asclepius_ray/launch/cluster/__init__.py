"""A cluster's profile → the files that launchers and operators take, and what is wrong with such files."""
