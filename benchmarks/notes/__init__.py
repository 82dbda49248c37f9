"""The application whose events are sent: notes, and the rows of the systems that are written by hand."""
