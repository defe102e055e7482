"""Every prompt of the project, one file each beside this one."""
