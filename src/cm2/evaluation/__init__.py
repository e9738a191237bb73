"""What results are worth: measures with intervals, tables, figures, and pages that show them."""
