"""What embedded judges measure in decoded media; one file per idea."""
