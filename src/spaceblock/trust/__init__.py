"""Who a peer is, who may come in, and what is remembered of both: keys, tickets, admission, an identity's records."""
