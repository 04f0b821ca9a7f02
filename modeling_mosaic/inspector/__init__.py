"""The page that shows a memory record in a browser."""
