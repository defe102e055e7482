"""Whether a note says only what its case report says: rules on text, no model."""
