"""What people look at: pictures and the HTML page."""
