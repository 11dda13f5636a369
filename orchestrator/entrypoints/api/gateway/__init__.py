"""The LLM gateway: the Messages API for agents. Session token in, real key out.

`app` is what the agent app serves; `call` is the story of one call; `exchange` hands its answer to
everybody who asked for it; `limiter` and `chain` say when and whom to ask; `providers` ask.
"""
