"""The guestbook: leave a name and a comment, see the comments, manage webhooks."""
