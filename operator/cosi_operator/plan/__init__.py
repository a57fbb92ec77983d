"""Planning: derives the one next step from a view. Pure; the time is an argument too."""
