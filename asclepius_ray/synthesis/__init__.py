"""Case reports → notes → questions → answers → dataset, with a teacher, on Ray Data."""
