"""What a run costs before anything of it has been paid: calls, GPU hours, money."""
