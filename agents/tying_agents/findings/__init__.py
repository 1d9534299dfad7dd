"""What the tying table says: numbers with tests, and the page that is made of them."""
