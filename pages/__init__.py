"""The pages: thin scripts that turn widgets into requests to the backend, and answers into charts."""
