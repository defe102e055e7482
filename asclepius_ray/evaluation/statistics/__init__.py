"""Grades → means, intervals over notes, paired comparisons and position bias. Pure: no Ray, no file."""
