"""Blinded sheets for clinicians: who grades what, the pages and tables, and reading them back."""
