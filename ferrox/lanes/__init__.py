"""The compiled half of the service: bytes in, bytes out, one call a batch.

    ring      records from the gateway to the matcher
    tape      reports from the matcher to whoever reads them
    entry     a client's packets to records, each checked on the way
    routing   reports to the accounts that they are for
    packets   reports to the packets of the feed

Each runs interpreted as well, and is right and slow then.  Sockets, clocks and processes are `ferrox.service`'s.
"""
