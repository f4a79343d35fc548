"""Every view of finished values: text, figures, the live page, the terminal; nothing here measures."""
