"""Its being here puts this folder on the path: the tests below share `served_models`."""
