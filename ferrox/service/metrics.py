"""Metrics over HTTP: `/metrics` for Prometheus, and `/health` for who only asks whether the service is ready.

Nothing counts for this.  The board and the tape hold every number already, and a scrape reads them where they stand, so
the matcher does not know whether anybody looks.  The server is a thread of the supervisor, which has nothing to hurry
for.  A counter of a process begins at 0 again when the process does, as Prometheus expects of counters.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, Final, NamedTuple
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ferrox.errors import UsageError
from ferrox.lanes.ring import PUSHED, TAKEN
from ferrox.lanes.tape import WRITTEN
from ferrox.service.board import ROLES, Board, ailments
from ferrox.service.config import Config, split
from ferrox.service.latencies import Latencies, cumulative
from ferrox.service.links import Links

REQUEST_SECONDS: Final = 5.0
"""How long a connection may take with its request."""
THREADS_MAX: Final = 32
"""Of the supervisor, behind which no further request is answered."""
POLL_SECONDS: Final = 0.1
"""From one look to the next whether to end."""

Words = dict[str, tuple[str, float]]


class Family(NamedTuple):
    """One metric that is read off the board: its help, and the word of each process that has it, with its scale."""

    help: str
    words: Words


def _of(scale: float = 1, **words: str) -> Words:
    """Return the words of processes, all in one scale."""
    return {role: (word, scale) for role, word in words.items()}


FAMILIES: Final = {
    "ferrox_start_time_seconds": Family(
        "When the service started, seconds since 1970.", _of(1e-9, supervisor="started_ns")
    ),
    "ferrox_records_total": Family(
        "Sequence number of the last record of the journal: written by the matcher, followed by the shadow.",
        _of(matcher="sequence", shadow="sequence"),
    ),
    "ferrox_durable_records_total": Family(
        "Sequence number up to which the journal is on disk.", _of(matcher="durable")
    ),
    "ferrox_reports_total": Family(
        "Number of the last report: of the engine, routed to clients, sent on the feed, counted by the shadow.",
        _of(matcher="reports", gateway="number", publisher="number", shadow="reports"),
    ),
    "ferrox_last_record_time_seconds": Family(
        "Time of the last record of the journal, seconds since 1970.", _of(1e-9, matcher="time_ns")
    ),
    "ferrox_disk_low": Family(
        "1 while the journal's disk is too full for anything but cancels.", _of(matcher="disk_low")
    ),
    "ferrox_batches_total": Family("Batches that the matcher took from the ring.", _of(matcher="batches")),
    "ferrox_snapshot_sequence": Family(
        "Sequence number of a snapshot: the one the matcher began from, the last one of the shadow.",
        _of(matcher="snapshot", shadow="snapshot"),
    ),
    "ferrox_replayed_records": Family("Records that the matcher's last start replayed.", _of(matcher="replayed")),
    "ferrox_recovery_seconds": Family("How long the matcher's last start took.", _of(1e-6, matcher="recovery_us")),
    "ferrox_waits_total": Family("Naps of the matcher because a reader of the tape was behind.", _of(matcher="waits")),
    "ferrox_bounced_total": Family("Commands sent back because the disk was full.", _of(matcher="bounced")),
    "ferrox_session_epoch": Family("Epoch of the journal in which the feed's session began.", _of(matcher="epoch")),
    "ferrox_connections": Family("Connections of clients.", _of(gateway="connections")),
    "ferrox_logins_total": Family("Logins that were accepted.", _of(gateway="logins")),
    "ferrox_refused_logins_total": Family("Logins that were refused.", _of(gateway="refused_logins")),
    "ferrox_dropped_connections_total": Family("Connections that the gateway closed or lost.", _of(gateway="dropped")),
    "ferrox_commands_total": Family("Commands that the gateway took.", _of(gateway="commands")),
    "ferrox_refused_total": Family("Commands that the gateway refused.", _of(gateway="refused")),
    "ferrox_delivered_reports_total": Family("Reports written to clients.", _of(gateway="delivered")),
    "ferrox_commands_in_flight": Family("Commands taken and not answered yet.", _of(gateway="in_flight")),
    "ferrox_resting_orders": Family("Orders that rest in all books.", _of(gateway="resting")),
    "ferrox_feed_packets_total": Family("Packets sent on both lines of the feed.", _of(publisher="packets")),
    "ferrox_feed_heartbeats_total": Family("Heartbeats of the feed.", _of(publisher="heartbeats")),
    "ferrox_feed_blocked_total": Family("Sends for which the kernel had no room.", _of(publisher="blocked")),
    "ferrox_feed_failed_total": Family("Sends that failed for good.", _of(publisher="failed")),
    "ferrox_retransmission_requests_total": Family("Requests for a retransmission.", _of(retransmitter="requests")),
    "ferrox_retransmission_answers_total": Family(
        "Requests that were answered with reports.", _of(retransmitter="answers")
    ),
    "ferrox_retransmission_reports_total": Family("Reports that were sent again.", _of(retransmitter="reports")),
    "ferrox_retransmission_unavailable_total": Family(
        "Requests for reports that are not kept any more.", _of(retransmitter="unavailable")
    ),
    "ferrox_retransmission_limited_total": Family("Requests beyond an address's rate.", _of(retransmitter="limited")),
    "ferrox_retransmission_foreign_total": Family(
        "Requests of another session, or from a network that is not answered.", _of(retransmitter="foreign")
    ),
    "ferrox_retransmission_failed_total": Family("Answers that could not be sent.", _of(retransmitter="failed")),
    "ferrox_statements_total": Family(
        "Statements of the live engine that the shadow found right.", _of(shadow="statements")
    ),
    "ferrox_states_served_total": Family("States sent to who came late to the feed.", _of(shadow="served")),
}
"""The metrics of the board; a name that ends in `_total` is a counter's, any other a gauge's."""

NO_METRIC: Final = {
    "supervisor": ("metrics_port",),
    "gateway": ("port",),
    "retransmitter": ("port",),
    "shadow": ("port",),
}
"""Words that are places and not quantities, or that nobody writes."""


class BoardCollector(Collector):
    """All metrics, as they are when somebody asks."""

    def __init__(self, config: Config, links: Links) -> None:
        self.config, self.links = config, links
        self.board = Board(links.board)
        self.latencies = Latencies(links.latencies)

    def collect(self) -> Iterator[Metric]:
        """Give every metric with its samples."""
        board = self.board
        yield GaugeMetricFamily(
            "ferrox_ready", "1 when every process runs and none hangs: what /health says.", int(not ailments(board))
        )
        now = time.monotonic_ns()
        yield _family(
            "ferrox_process_state",
            "What a process does: 0 absent, 1 starting, 2 running, 3 stopping, 4 stopped.",
            {role: board.get(role, "state") for role in ROLES},
        )
        yield _family(
            "ferrox_process_starts_total",
            "How often the supervisor has started a process.",
            {role: board.get(role, "starts") for role in ROLES[1:]},
        )
        yield _family(
            "ferrox_process_beat_age_seconds",
            "How long ago a process last said that it lives.",
            {role: max(0, now - board.get(role, "beat")) / 1e9 for role in ROLES},
        )
        for name, family in FAMILIES.items():
            yield _family(
                name, family.help, {role: board.get(role, word) * scale for role, (word, scale) in family.words.items()}
            )
        histogram = HistogramMetricFamily(
            "ferrox_latency_seconds",
            "From the gateway's reading of a command to its reports on the tape (match), or routed to the client "
            "(answer).",
            labels=["stage"],
        )
        for stage, counts in self.latencies.counts().items():
            histogram.add_metric([stage], cumulative(counts), self.latencies.sum_ns(stage) / 1e9)
        yield histogram
        ring, tape, memory = self.links.ring.words, self.links.tape.words, self.config.memory
        yield GaugeMetricFamily("ferrox_ring_records", "Records in the ring.", max(0, ring[PUSHED] - ring[TAKEN]))
        yield GaugeMetricFamily("ferrox_ring_capacity_records", "Records that the ring holds.", memory.ring)
        yield CounterMetricFamily("ferrox_tape_reports_total", "Number of the last report on the tape.", tape[WRITTEN])
        yield GaugeMetricFamily("ferrox_tape_capacity_reports", "Reports that the tape keeps.", memory.tape)
        yield _family(
            "ferrox_tape_unread_reports",
            "Reports on the tape that a reader, for whom the matcher waits, has not read yet.",
            self.links.unread(),
        )


def _family(name: str, text: str, values: Mapping[str, float]) -> Metric:
    """Return a metric with a sample for each process."""
    kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
    family = kind(name, text, labels=["process"])
    for role, value in values.items():
        family.add_metric([role], value)
    return family


# ------------------------------------------------------------------------------------------------------------ over HTTP

StartResponse = Callable[..., Any]
Application = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


def make_application(collector: BoardCollector) -> Application:
    """Return the WSGI application: `/metrics`, and `/health`, 200 when the service is ready and 503 when it is not."""
    registry = CollectorRegistry()
    registry.register(collector)
    metrics: Application = make_wsgi_app(registry)

    def application(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO")
        if path == "/metrics":
            return metrics(environ, start_response)
        if path == "/health":
            found = ailments(collector.board)
            status = "503 Service Unavailable" if found else "200 OK"
            return _answer(start_response, status, {"ready": not found, "processes": found})
        return _answer(start_response, "404 Not Found", {"error": "there are /metrics and /health here"})

    return application


def _answer(start_response: StartResponse, status: str, value: dict[str, Any]) -> Iterable[bytes]:
    """Answer with one JSON object."""
    body = json.dumps(value).encode() + b"\n"
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


class Handler(WSGIRequestHandler):
    """One request: no line in the log for each, and no patience with who never ends it."""

    timeout = REQUEST_SECONDS

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingMixIn, WSGIServer):
    """A server that asks no name server who it is, and that a slow client does not keep from others."""

    daemon_threads = True

    def server_bind(self) -> None:
        """Bind, under the address as a name."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, unless there are too many already."""
        if threading.active_count() > THREADS_MAX:
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Let a client that went away go."""


class MetricsServer:
    """A thread that answers."""

    def __init__(self, config: Config, links: Links) -> None:
        """Listen where the configuration says; raise `UsageError` when that is not to be had."""
        endpoint = split(config.metrics.listen)
        try:
            self.server = Server(endpoint, Handler)
        except OSError as error:
            raise UsageError(
                f"[metrics] listen: {config.metrics.listen}: {error.strerror}; name another port, or 0 for any"
            ) from None
        self.server.set_app(make_application(BoardCollector(config, links)))
        self.port: int = self.server.server_port
        self.thread = threading.Thread(
            target=self.server.serve_forever, args=(POLL_SECONDS,), name="metrics", daemon=True
        )
        self.thread.start()

    def close(self) -> None:
        """Answer no more."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
