"""The pure heart of SpawnAI: values, state machines and the planner. No I/O, no clock, no logging.

Glossary. Code, logs, API and documents use these words and no synonyms. The name in backticks
carries the word; it is relative to this package, or to `orchestrator` if it begins with `services`,
`loops` or `ports`.

Nouns

Session       What a user asked for, from the request to its end. `sessions.session.Session`
wanted        What should become of a session: RUNNING or GONE. `sessions.session.Wanted`
Attempt       One run of a session towards READY, at most three. `sessions.planner.ATTEMPTS_MAX`
Tier          The plan of a user; it decides limits and queue order. `sessions.session.Tier`
Wish          What a session requires of its host. `pool.host.Wish`
Room          A warm sandbox or a free slot of one kind of host. `sessions.rooms.Room`
Demand        What sessions in the queue need of the pool. `sessions.rooms.Demand`
Turn          Whether a session may take a room now, and which ones. `sessions.rooms.Turn`
Bundle        The source of an app as a tar.gz archive. `ports.Bundles`
Version       A bundle of a session: v1, v2 and so on. `sessions.bundles.BundleRecord`
Template      A built-in app of the catalog. `ports.Template`
Generation    An app that an equal prompt may start again. `sessions.generations.Generation`
Change        A message to the model, or a return to an earlier version. `sessions.changes.Change`
Turns         How far a session has come with its changes. `sessions.change_turns.Turns`
Move          A READY session on its way to another host. `sessions.session.Move`
Successor     The new sandbox of a move. `services.sessions.relocation.switch_to_successor`
Observation   What the planner may look at. `sessions.planner.Observation`
Step          The next action for a session, as data. `sessions.steps.Step`
Sandbox       One container on one host: one slot, slug, port and agent. `pool.sandbox.Sandbox`
Warm sandbox  One that is ready and belongs to no session. `pool.sandbox.SandboxState.WARM`
Agent         Our program inside a sandbox. `services.agents.inbox.visit` answers it.
Agent socket  The way of one sandbox to us, and of no other. `pool.agent_sockets.folder_of`
Inbox         Where an agent polls for its assignment. `services.agents.inbox.Inbox`
Report        What an agent tells about its app. `sessions.session.Report`
Trial         A version that only our probe sees. `services.agents.trials.Trial`
Walked        What the walks of an app have shown. `sessions.walks.Walked`
Slug          The random public name of an app. `ids.Slug`
Route         From a slug to the endpoint of a sandbox. `pool.routes.Route`
RouteTable    All routes at one moment. `pool.routes.RouteTable`
Port          Where visitors reach a sandbox. `pool.published_ports.PublishedPort`
Host          A machine with Docker, this one or one over SSH. `pool.host.Host`
Pool          All hosts. `pool.refill.PoolTotals`
Slot          Room for one sandbox on a host. `pool.host.HostLoad`
Share         The CPUs of a sandbox whose app is READY. `pool.cpu_limits.CpuLimits`
Engine        The Docker engine of one host. `ports.Engine`
Link          The connection to a host, over SSH to a remote one. `pool.host_liveness.LinkState`
Term          One daemon's time as the leader, with a number. `ports.Term`
Bulkhead      It bounds the calls to each host's engine. `loops.bulkhead.Bulkhead`
Container     What an engine runs for a sandbox. `pool.sandbox_diagnosis.Container`
Diagnosis     A difference between the store and an engine. `pool.sandbox_diagnosis.Diagnosis`
Principal     The authenticated sender of a request. `people.access.Principal`
Token         What an agent or a visitor authenticates with. `people.tokens.Tokens`
Gateway       Our Messages API for agents. `llm.requests.ModelRequest` is what it gets.
Provider      Who answers behind the gateway. `llm.attempts.Candidate`
Breaker       It stops calls to a provider that fails. `llm.breakers.Breaker`
Call          One request to a model and its cost. `llm.usage.Call`
Budget        What a session, a user or the installation may spend. `llm.budgets.Budgets`
Account       What is spent of one budget. `llm.budgets.Account`
Reservation   What one call can cost at most, taken off before it is sent. `llm.usage.Reservation`
Time          The application's: nobody who sets the machine's clock moves it. `ports.Clock`

Verbs

claim         Give a warm sandbox to a session. `ports.Sandboxes.claim`
place         Choose a host for a new sandbox and take a slot there. `ports.Sandboxes.place`
launch        Start a placed sandbox for the warm pool. `services.pool.refill.launch`
refill        Start warm sandboxes up to the target. `pool.refill.refill`
retire        Mark a sandbox STOPPING, so that its route is withdrawn. `services.pool.claims.retire`
abandon       Leave a sandbox to the pool: its session goes on. `services.pool.claims.abandon`
publish       Make the proxy use a new route table. `services.pool.routes.publish`
withdraw      Take a route out of the published table. `ports.Sandboxes.mark_routes`
raise         Let a sandbox use more CPUs than its share. `pool.cpu_limits.plan`
lower         Limit it to its share again. `services.pool.cpu_limits.change`
remove        Delete a container, and free its slot and port. `services.pool.claims.remove`
nudge         Ask for a look at a session; may be lost or repeated. `services.nudges.nudge`
converge      Bring a session nearer to what is wanted. `services.sessions.converge.converge`
plan          Choose the next step of a session. `sessions.planner.plan`
walk          Open an app at its public URL, as a visitor does. `sessions.steps.Walk`
accept        Make a session READY whose app was well. `sessions.steps.Accept`
expire        Set wanted to GONE when a session's time is up. `ports.Sessions.expire`
recover       Start the bundle again after its sandbox was lost. `sessions.steps.Requeue`
relocate      Move a READY session to another host while it stays up. `sessions.steps.Relocate`
restore       Run an earlier version again. `services.sessions.changes.restore`
reconcile     Make a host's containers match the store. `services.pool.reconcile.reconcile`
probe         Request a public URL as a user would. `ports.Probe`
lease         Take a named role that one process has at a time. `ports.Leases.hold`
cordon        Stop placing sandboxes on a host. `services.pool.hosts.cordon`
drain         Cordon a host, and wait for its sessions or move them. `services.pool.hosts.drain`
admit         Check a host and mark it UP. `services.pool.host_life.admit`
sweep         Remove what an earlier life of a host left on it. `services.pool.host_life.sweep`
reserve       Take a call's worst case off its budgets. `ports.Usage.reserve`
settle        Replace a reservation by the real cost. `ports.Usage.settle`
"""
