"""Raw clinical tables: what prepares them, and what makes such tables up. It knows no torch."""
