"""HTTP servers in front of the API. Each has ``start(listen, api, limits)``, and all give the same answers."""
