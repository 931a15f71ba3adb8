"""The matching service: processes that each do one thing, joined by shared memory.

    gateway        clients, risk          | supervisor   starts, watches and stops the others
    matcher        journal, engine        | board        what each says of itself, in shared memory
    publisher      the feed               | config       ferrox.toml
    retransmitter  what the feed lost
    shadow         snapshots, states for those who come late

    client -TCP-> gateway -ring-> matcher -tape-> publisher -UDP-> subscriber
                     ^-----------------------'

What may die, dies alone: a process that ends is started again and finds in shared memory and in the journal all that it
needs.  What must not go on, a journal that fails or an engine that is not deterministic, stops the venue.
"""
