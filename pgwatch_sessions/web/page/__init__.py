"""The page in HTML: templates, a style sheet, and the texts that fill them."""
