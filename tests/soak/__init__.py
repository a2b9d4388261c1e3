"""Whether the daemon grows: as many polls as in a day, on a server whose clients come and go."""
