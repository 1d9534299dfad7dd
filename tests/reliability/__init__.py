"""Nothing is lost: what the package promises about stops, crashes and bad files."""
