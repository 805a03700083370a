"""Ranks one run's queries in several processes, all of which ask through the one that the user started."""
