"""Route of the search for classes and layers, which the page calls as its visitor types."""

from dataclasses import asdict

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from extremal.app.choices import search_choices
from extremal.app.middleware import SEARCH_PATH
from extremal.app.networks import ServedNetwork
from extremal.errors import ExtremalValueError


def add_search_route(app: FastAPI, networks: dict[str, ServedNetwork]) -> None:
    """Add the route of the search to an application.

    Args:
        app: of the page.
        networks: served networks by name; the first one is searched if a request names none.
    """

    @app.get(SEARCH_PATH)
    def search(kind: str = "", network: str = "", text: str = "") -> JSONResponse:
        served = networks.get(network) if network else next(iter(networks.values()))
        if served is None:
            return JSONResponse({"error": "this network is not offered; reload the page"}, 400)
        try:
            found = search_choices(kind, served, text)
        except ExtremalValueError as error:
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse([asdict(choice) for choice in found])
