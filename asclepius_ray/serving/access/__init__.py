"""Who may ask: keys, their scopes and limits, and what is written down of each request."""
