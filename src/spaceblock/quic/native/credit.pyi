from .streams import ReceiveStream

NEAR: int
NEAR_SHARED: int
NEAR_WINDOW_MIN: int
WINDOWS_MAX: int

class Credit:
    limit: int
    received: int
    consumed: int
    is_local: bool
    def set_windows(
        self, connection_window: int, stream_window: int, control_window: int, receive_buffer: int
    ) -> None: ...
    def set_connection(self, limit: int, received: int, consumed: int) -> None: ...
    def add(self, stream: ReceiveStream) -> None: ...
    def remove(self, stream: ReceiveStream) -> None: ...
