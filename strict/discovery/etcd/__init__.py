"""Discovery through etcd, in the key layout of Cilium's kvstore.

    settings   what `[discovery.etcd]` says
    layout     keys and JSON, as Cilium writes them; pure
    mirror     from pairs and events to updates, by difference; pure
    store      requests to one of several endpoints, on the client library etcd3gw
    reader     the thread that lists and watches
    writer     the thread that keeps the lease and the own keys
    source     the `Discovery` that the agent polls
    drain      leaving: withdraw, wait until the others have seen it

A store is shared: whoever may write to it may write nonsense.  What is wrong in itself is
refused here, key by key; what contradicts other nodes is refused by `strict.claims`.
"""
