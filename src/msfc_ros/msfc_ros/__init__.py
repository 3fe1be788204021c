"""What the nodes of MSFC share: managed node, worker thread, QoS, parameters, messages."""
