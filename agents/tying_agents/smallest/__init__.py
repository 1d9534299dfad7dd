"""The smallest network that is as good as conventional training, on data of one's own."""
