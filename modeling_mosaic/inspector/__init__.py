"""What memories do on a text: recorded, measured, edited, and shown on a page."""
