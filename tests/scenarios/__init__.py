"""Stories of clients as data, a simulator that plays them, and what is asked of the findings."""
