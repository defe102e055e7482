"""The HTTP surface of a replica: OpenAI's routes, the clinical routes, the page."""
