"""Where events are used: a web page, MQTT, alerts, Prometheus. Each is a subscriber and no more.

    listener -> ZeroMQ -> streamtwl serve: Feed -> Service, Service, ...

They run in a process of their own, `streamtwl serve`, on any machine that reaches the listener;
`listen --mqtt` and the like start one beside it (`child.py`). A service is a module or package of
the name that it has in the pipeline's [services], with `make(settings)`; it is imported when it is
used, so that what it needs (the extra of the same name) need not be there otherwise.
"""
