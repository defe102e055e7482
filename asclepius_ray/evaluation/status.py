"""The file in a run's root that says how far its evaluation is, or was when it was last at work."""

STATUS_NAME = "evaluation_status.json"
