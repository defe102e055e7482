"""Asking a chat endpoint, and the offline teacher, which is one."""
