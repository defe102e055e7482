"""HAProxy as Ray Serve starts it, made fit for a network: what it opens, what it answers, what it guards."""
