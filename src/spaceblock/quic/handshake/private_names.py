"""The private names of aioquic that this package uses, and the series of it that there are.

The names are checked when the engine is imported, so that an aioquic that differs is refused with the list of what is
missing, not with a puzzling failure later.
"""

from __future__ import annotations

import aioquic
from aioquic import tls
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.crypto import CryptoContext
from aioquic.quic.stream import QuicStream

from ...errors import EngineUnavailable

OLD_SERIES = tuple(map(int, aioquic.__version__.split(".")[:2])) < (1, 7)
"""aioquic 1.3, the last for Python 3.10: other signatures, and limits that are not raised as streams end."""

_CONNECTION_NAMES = (
    *(
        "_close_at",
        "_close_event",
        "_close_begin",
        "_get_or_create_stream",
        "_host_cids",
        "_is_client",
        "_local_max_data",
        "_local_max_stream_data_bidi_local",
    ),
    *("_local_max_stream_data_bidi_remote", "_local_max_stream_data_uni", "_local_max_streams_bidi"),
    *("_local_max_streams_uni", "_loss", "_max_datagram_size", "_peer_cid", "_ping_pending"),
    *("_network_paths", "_peer_cid_sequence_numbers", "_peer_retire_prior_to", "_retire_peer_cid"),
    *("_remote_ack_delay_exponent", "_replenish_connection_ids"),
    *("_state", "_streams", "_initialize", "_on_connection_limit_delivery", "_on_max_stream_data_delivery"),
    *("_parse_transport_parameters", "_receive_version_negotiation_packet", "_set_state", "_unblock_streams"),
    "_update_traffic_key",
    *("_write_application", "_write_connection_limits", "_write_stream_frame", "_write_stream_limits"),
)


def check() -> None:
    """Raise :class:`EngineUnavailable` naming what this package uses and this aioquic does not have."""
    connection = QuicConnection(configuration=QuicConfiguration())
    stream = QuicStream()
    objects: tuple[tuple[str, object, tuple[str, ...]], ...] = (
        ("QuicConnection", connection, _CONNECTION_NAMES),
        ("CryptoContext", CryptoContext(), ("cipher_suite", "key_phase", "secret")),
        ("Limit", connection._local_max_data, ("frame_type", "sent", "used", "value")),
        ("QuicPacketRecovery", connection._loss, ("_rtt_initial", "_rtt_initialized", "_rtt_smoothed")),
        ("QuicStream", stream, ("is_blocked", "max_stream_data_local", "max_stream_data_local_sent", "receiver")),
        ("QuicStreamReceiver", stream.receiver, ("highest_offset", "is_finished", "stop")),
        (
            "QuicStreamSender",
            stream.sender,
            ("_buffer_fin", "_buffer_start", "_buffer_stop", "_reset_error_code", "buffer_is_empty", "is_finished"),
        ),
        (
            "tls.Context",
            tls.Context(is_client=True),
            ("_peer_certificate", "_request_client_certificate", "_set_peer_certificate", "_supported_groups"),
        ),
    )
    missing = [f"{kind}.{name}" for kind, thing, names in objects for name in names if not hasattr(thing, name)]
    if missing:
        version = getattr(aioquic, "__version__", "of an unknown version")
        raise EngineUnavailable(
            f"aioquic {version} lacks {', '.join(missing)}; install a version from 1.7.2 up to and without 1.8 "
            "(1.3 for Python 3.10)"
        )
