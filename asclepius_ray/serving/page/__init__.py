"""The web page at `/`: three files that need nothing from elsewhere, and the routes that give them."""
