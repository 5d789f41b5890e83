"""Optuna's own pages over the studies, on this machine only.

The package serves its scripts itself, so that the pages work offline. They can delete a study and rename it:
whoever uses this machine may do that.
"""

from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
from optuna.storages import RDBStorage

from captchalab.errors import UserError

HOST = "127.0.0.1"


class _Server(ThreadingMixIn, WSGIServer):
    """Answers several requests at once; none of them keeps it from ending."""

    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    """Logs no requests: the pages ask for news every few seconds."""

    def log_message(self, format: str, *args: object) -> None: ...


def server(storage: RDBStorage, port: int) -> WSGIServer:
    """A server of the pages, bound to its port and not yet running."""
    from optuna_dashboard import wsgi

    return make_server(HOST, port, wsgi(storage), _Server, _Quiet)


def page(storage: RDBStorage, port: int) -> str:
    """The address of the pages: of the only study, or of the list of all.

    Raises:
        UserError: there is no study.
    """
    names = optuna.get_all_study_names(storage)
    if not names:
        raise UserError("There is no study yet: `captchalab search run` makes one.")
    if len(names) == 1:
        return f"http://{HOST}:{port}/dashboard/studies/{storage.get_study_id_from_name(names[0])}"
    return f"http://{HOST}:{port}/dashboard"
