"""The LLM gateway: the Messages API for agents. It takes a session's token and sends the real key.

`app` holds the endpoints that the agent app serves. `call` runs one call from the reservation to
the account. `exchange` hands one answer to every client that made the same request. `limiter` and
`chain` decide when to call and whom. `providers` sends the requests.
"""
