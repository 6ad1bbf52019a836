"""The description of everything that is served, as one OpenAPI 3.1 document, and the page that shows it."""
